"""The module engine_config, for instances that Docker runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import refusals
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import Container
from ansible_collections.gpuhosts.vllm.plugins.modules import engine_config

from . import test_engine_config as host
from .test_engine_config import TINY, Configure, age, start

configure = host.configure

IMAGE = "gpuhosts/vllm:0.33.0-0f3b"
BOXED: dict[str, Any] = {**TINY, "id": "boxed-1", "runtime": "docker", "container": {"devices": ["GPU-1"]}}
DOCKER = """#!/bin/sh
echo "$@" >>"$RUNNING/docker.log"
for last; do :; done
if grep -q plenty "$last"; then echo "vllm serve: error: $last: plenty is invalid" >&2; exit 2; fi
"""
DROP_IN = "vllm@boxed-1.service.d/places.conf"


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The images that Docker has."""
    there = {IMAGE}
    monkeypatch.setattr(engine_config, "has_image", lambda _, name: name in there)
    return there


@pytest.fixture
def contain(configure: Configure, images: set[str], tmp_path: Path) -> Configure:
    """Configure with what containers need; ``images`` are there."""
    assert images
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)

    def run(*instances: dict[str, Any], image: str = IMAGE, wrapper: str = "wrapper", **more: Any) -> dict[str, Any]:
        path = str(tmp_path / "lib/container.py")
        containers = {"image": image, "wrapper": path, "check": "print()"}
        return configure(*instances, containers=containers, programs={path: wrapper}, **more)

    return run


def kept(home: Path) -> dict[str, Any]:
    return json.loads((home / "instances/boxed-1.json").read_text())


def test_its_keeper_starts_a_container_with_the_same_options(contain: Configure, tmp_path: Path) -> None:
    assert contain(BOXED, unit="[Service]\nEnvironment=HF_HOME=/var/lib/vllm/hub\n")["start"] == ["boxed-1"]
    command, options = kept(tmp_path)["command"], str(tmp_path / "instances/boxed-1.yaml")
    assert command[2:4] == [str(tmp_path / "lib/container.py"), "vllm-boxed-1"]
    assert command[-6:] == [IMAGE, "serve", "--config", options, "--shutdown-timeout", "60"]
    assert {"--env=A", "--env=HF_HOME", "--env=VLLM_API_KEY", "--device=nvidia.com/gpu=GPU-1"} <= set(command)
    assert kept(tmp_path)["cleanup"] == command[:4]
    assert "hidden" not in (tmp_path / "instances/boxed-1.json").read_text()
    assert Path(options).read_text() == "port: 8000\n"
    assert {"SupplementaryGroups=docker", "After=docker.service"} <= set((tmp_path / DROP_IN).read_text().splitlines())

    start(tmp_path, "boxed-1")
    again = contain(BOXED, unit="[Service]\nEnvironment=HF_HOME=/var/lib/vllm/hub\n")
    assert (again["changed"], again["restart"]) == (False, [])


def test_a_host_with_nothing_but_containers_needs_no_release(
    contain: Configure, images: set[str], tmp_path: Path
) -> None:
    account = {"user": "root", "group": "root", "home": "/root", "shell": "/bin/bash"}
    assert contain(BOXED, **account, only_prepared=True)["prepared"]
    assert not (tmp_path / "current").is_symlink()
    assert not contain(BOXED, TINY, **account, only_prepared=True)["prepared"]
    images.clear()
    assert not contain(BOXED, **account, only_prepared=True)["prepared"]


@pytest.mark.parametrize("runtimes", [("systemd", "docker"), ("docker", "systemd")])
def test_one_variable_moves_it_and_nothing_of_the_other_runtime_stays(
    contain: Configure, tmp_path: Path, runtimes: tuple[str, str]
) -> None:
    records = {"systemd": {**TINY, "id": "boxed-1"}, "docker": BOXED}
    contain(records[runtimes[0]])
    start(tmp_path, "boxed-1")

    assert contain(records[runtimes[1]])["restart"] == ["boxed-1"]

    boxed = runtimes[1] == "docker"
    assert ("docker" in (tmp_path / DROP_IN).read_text()) is boxed
    assert bool(kept(tmp_path)["cleanup"]) is boxed
    assert ("container.py" in str(kept(tmp_path))) is boxed
    assert ("current/bin/vllm" in str(kept(tmp_path))) is not boxed


def test_the_image_and_the_wrapper_restart_containers_alone_and_a_release_the_others(
    contain: Configure, images: set[str], tmp_path: Path
) -> None:
    contain(BOXED, TINY)
    for name in ("boxed-1", "tiny-1"):
        start(tmp_path, name)
    assert contain(BOXED, TINY, wrapper="a better one")["restart"] == ["boxed-1"]
    start(tmp_path, "boxed-1")
    age(tmp_path)
    images.add("gpuhosts/vllm:next")
    assert contain(BOXED, TINY, image="gpuhosts/vllm:next")["restart"] == ["boxed-1"]
    start(tmp_path, "boxed-1")
    age(tmp_path)
    found = contain(BOXED, TINY, image="gpuhosts/vllm:next", release=str(tmp_path / "versions/2"))
    assert found["restart"] == ["tiny-1"]


def test_the_vllm_of_the_image_is_asked_about_options_and_about_all_with_another_image(
    contain: Configure, images: set[str], tmp_path: Path
) -> None:
    plenty = BOXED | {"engine_args": {"max-model-len": "plenty"}}
    told = contain(plenty)["msg"]
    assert told.startswith("boxed-1: vLLM does not accept its options. Nothing was changed.")
    assert f"{tmp_path}/instances/boxed-1.yaml: plenty is invalid" in told
    assert not (tmp_path / "instances/boxed-1.yaml").exists()

    contain(BOXED)
    log = tmp_path / "running/docker.log"
    log.unlink()
    contain(BOXED)
    assert not log.exists(), "nothing is new"
    images.add("gpuhosts/vllm:next")
    contain(BOXED, image="gpuhosts/vllm:next")
    assert " gpuhosts/vllm:next -c print() " in log.read_text()


def test_a_container_that_does_not_start_is_not_taken_for_a_wrong_option(contain: Configure, tmp_path: Path) -> None:
    (tmp_path / "bin/docker").write_text("#!/bin/sh\necho no such device >&2\nexit 125\n")
    told = contain(BOXED)["msg"]
    assert told == "boxed-1: no container of its image starts. Nothing was changed. no such device"


def test_a_strangers_container_of_its_name_is_refused_before_anything_is_written(
    contain: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = {"vllm-boxed-1": Container("registry.example/vllm:own", "")}
    monkeypatch.setattr(refusals, "container_named", lambda _, name: there.get(name))
    told = contain(TINY, BOXED, _ansible_check_mode=True)["msg"]
    assert told == (
        "boxed-1: the container vllm-boxed-1 of the image registry.example/vllm:own is none of this collection, and "
        "has its name. Rename it with `docker rename vllm-boxed-1 OTHER`, or remove it with "
        "`docker rm --force vllm-boxed-1`."
    )
    assert contain(BOXED)["msg"] == told
    assert not (tmp_path / "instances").exists()

    assert contain({**BOXED, "runtime": "systemd"})["start"] == ["boxed-1"], "it is in nobody's way"
    there["vllm-boxed-1"] = Container(IMAGE, "boxed-1")
    assert contain(BOXED)["start"] == ["boxed-1"]


def test_check_mode_before_there_is_an_image_asks_nobody(contain: Configure, images: set[str], tmp_path: Path) -> None:
    images.clear()
    assert contain(BOXED, _ansible_check_mode=True)["start"] == ["boxed-1"]
    assert not (tmp_path / "running/docker.log").exists()
