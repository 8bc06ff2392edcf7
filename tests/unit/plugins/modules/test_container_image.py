"""The one image that was asked for, with an engine in memory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.modules import container_image

from tests.unit.plugins.conftest import RunModule

NAME = "gpuhosts/vllm:0.33.0-0f0f0f0f"
OLD = "gpuhosts/vllm:0.32.0-77777777"
REPOSITORY = "docker.io/vllm/vllm-openai"
DIGEST = f"sha256:{'0f' * 32}"
PULLED = f"{REPOSITORY}@{DIGEST}"


class Docker:
    """Images by name, each with the version of vLLM in it; what was asked of the engine."""

    def __init__(self) -> None:
        self.images: dict[str, str] = {}
        self.registry = {PULLED: "0.33.0"}
        self.used: set[str] = set()
        self.asked: list[str] = []
        self.runs = True
        self.full = False
        self.archive = "Loaded image: vllm/vllm-openai:v0.33.0"

    def ask(self, *words: str) -> tuple[int, str, str]:
        self.asked.append(" ".join(words))
        if not self.runs:
            return 1, "", "Cannot connect to the Docker daemon"
        try:
            return 0, getattr(self, words[0])(*words[1:]), ""
        except LookupError as error:
            return 1, "", str(error.args[0])

    def version(self, *_: str) -> str:
        return "29.7.2"

    def pull(self, *words: str) -> str:
        name = words[-1]
        if self.full or name not in self.registry:
            raise LookupError("no space left on device" if self.full else f"manifest for {name} not found")
        self.images[name] = self.registry[name]
        return name

    def load(self, *_: str) -> str:
        self.images.update({line.split(": ")[1]: "0.33.0" for line in self.archive.splitlines()})
        return self.archive

    def tag(self, name: str, other: str) -> str:
        self.images[other] = self.images[name]
        return ""

    def run(self, *words: str) -> str:
        return self.images[words[-3]]

    def ps(self, *words: str) -> str:
        if words[-1] == "--format={{.Image}}":
            return "\n".join(sorted(self.used))
        versions = {self.images[name] for name in self.used}
        return "4f5e" if self.images[words[-1].removeprefix("--filter=ancestor=")] in versions else ""

    def image(self, verb: str, *words: str) -> str:
        if verb == "rm":
            for name in words:
                del self.images[name]
        if verb == "ls":
            return "\n".join(name for name in self.images if name.startswith(f"{words[-1]}:"))
        if verb == "inspect":
            version = self.images[words[-1]]
            same = [name for name in self.images if self.images[name] == version]
            tags, digests = ([name for name in same if ("@" in name) is pulled] for pulled in (False, True))
            return json.dumps({"RepoTags": tags, "RepoDigests": digests})
        return ""

    def did(self, verb: str) -> bool:
        return any(asked.startswith(verb) for asked in self.asked)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    engine = Docker()
    monkeypatch.setattr(container_image.Engine, "ask", engine.ask)
    return engine


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, Any]:
    """What a module is given for an image in a file."""
    file = tmp_path / "image.tar"
    file.write_bytes(b"an archive")
    checksum = f"sha256:{hashlib.sha256(b'an archive').hexdigest()}"
    return {"name": NAME, "file": str(file), "checksum": checksum, "version": "0.33.0"}


WANTED = {"name": NAME, "repository": REPOSITORY, "digest": DIGEST, "version": "0.33.0"}


def test_it_is_pulled_by_its_digest_once(run_module: RunModule, docker: Docker) -> None:
    assert run_module(container_image, **WANTED, _ansible_check_mode=True)["changed"]
    assert not docker.did("pull")

    assert run_module(container_image, **WANTED)["changed"]
    assert f"pull --quiet {PULLED}" in docker.asked
    assert docker.images[NAME] == "0.33.0"

    docker.asked.clear()
    assert not run_module(container_image, **WANTED)["changed"]
    assert not docker.did("pull")


def test_a_name_that_somebody_gave_to_another_image_is_not_taken_for_it(run_module: RunModule, docker: Docker) -> None:
    docker.images[NAME] = "else"
    assert run_module(container_image, **WANTED)["changed"]
    assert docker.images[NAME] == "0.33.0"


def test_another_vllm_than_the_planned_one_gets_no_name(run_module: RunModule, docker: Docker) -> None:
    docker.registry[PULLED] = "0.31.0"
    told = run_module(container_image, **WANTED)["msg"]
    assert "has vLLM 0.31.0, and vllm_version is 0.33.0" in told
    assert "Set vllm_version to 0.31.0" in told
    assert NAME not in docker.images
    docker.images.clear()
    assert run_module(container_image, **WANTED | {"version": "0.31.0"})["changed"]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"runs": False}, "No Docker Engine answers. Let hardware.yml set it up, or start it"),
        ({"registry": {}}, f"docker pull {PULLED}: manifest for {PULLED} not found"),
        ({"full": True}, "no space left on device Make room below Docker's data-root"),
    ],
)
def test_what_keeps_it_away_is_told(run_module: RunModule, docker: Docker, state: dict[str, Any], told: str) -> None:
    vars(docker).update(state)
    assert told in run_module(container_image, **WANTED)["msg"]
    assert NAME not in docker.images


def test_check_mode_on_a_fresh_host_needs_no_engine(run_module: RunModule, docker: Docker) -> None:
    docker.runs = False
    assert run_module(container_image, **WANTED, _ansible_check_mode=True)["changed"]


def test_an_archive_is_loaded_once(run_module: RunModule, docker: Docker, archive: dict[str, Any]) -> None:
    assert run_module(container_image, **archive)["changed"]
    assert docker.images[NAME] == "0.33.0"
    Path(archive["file"]).unlink()
    assert not run_module(container_image, **archive)["changed"]


def test_another_archive_is_not_loaded(run_module: RunModule, docker: Docker, archive: dict[str, Any]) -> None:
    Path(archive["file"]).write_bytes(b"cut o")
    told = run_module(container_image, **archive)["msg"]
    assert "Copy it again, or set the checksum of the file that you trust." in told
    Path(archive["file"]).unlink()
    assert "Put the archive of `docker save` there" in run_module(container_image, **archive)["msg"]
    assert not docker.did("load")


def test_an_archive_of_several_images_is_refused(
    run_module: RunModule, docker: Docker, archive: dict[str, Any]
) -> None:
    docker.archive = "Loaded image: a:1\nLoaded image: b:2"
    assert "has 2 images (a:1, b:2), and one is needed." in run_module(container_image, **archive)["msg"]
    assert NAME not in docker.images


def test_what_no_container_uses_is_told_and_removed_on_request(run_module: RunModule, docker: Docker) -> None:
    used = "gpuhosts/vllm:0.31.0-11111111"
    digest = "docker.io/vllm/vllm-openai@sha256:77"
    docker.images = {PULLED: "0.33.0", NAME: "0.33.0", OLD: "0.32.0", digest: "0.32.0", used: "0.31.0"}
    docker.used = {used}
    result = run_module(container_image, **WANTED)
    assert (result["changed"], result["unused"]) == (False, [OLD])

    assert run_module(container_image, **WANTED, remove_unused=True, _ansible_check_mode=True)["changed"]
    assert OLD in docker.images

    result = run_module(container_image, **WANTED, remove_unused=True)
    assert (result["changed"], result["unused"]) == (True, [])
    assert set(docker.images) == {PULLED, NAME, used}
    assert not run_module(container_image, **WANTED, remove_unused=True)["changed"]


def test_another_name_of_the_image_that_runs_goes_unless_a_container_has_it(
    run_module: RunModule, docker: Docker
) -> None:
    """The same image came by a file after it came from a registry, or the other way round."""
    docker.images = {PULLED: "0.33.0", NAME: "0.33.0", OLD: "0.33.0"}
    docker.used = {NAME, OLD}
    assert run_module(container_image, **WANTED, remove_unused=True)["unused"] == []
    assert set(docker.images) == {PULLED, NAME, OLD}
    docker.used = {NAME}
    assert run_module(container_image, **WANTED)["unused"] == [OLD]
    assert run_module(container_image, **WANTED, remove_unused=True)["changed"]
    assert set(docker.images) == {PULLED, NAME}


def test_all_go_that_nothing_uses(run_module: RunModule, docker: Docker) -> None:
    docker.images = {PULLED: "0.33.0", NAME: "0.33.0", OLD: "0.32.0", "site:1": "0.30.0"}
    docker.used = {OLD}
    assert run_module(container_image, name=NAME, state="absent")["changed"]
    assert set(docker.images) == {OLD, "site:1"}
    assert not run_module(container_image, name=NAME, state="absent")["changed"]
    docker.runs = False
    assert not run_module(container_image, name=NAME, state="absent")["changed"]


def test_an_image_that_has_another_name_as_well_loses_ours_only(run_module: RunModule, docker: Docker) -> None:
    digest = "docker.io/vllm/vllm-openai@sha256:77"
    docker.images = {PULLED: "0.33.0", NAME: "0.33.0", OLD: "0.32.0", digest: "0.32.0", "site:1": "0.32.0"}
    run_module(container_image, **WANTED, remove_unused=True)
    assert set(docker.images) == {PULLED, NAME, digest, "site:1"}
