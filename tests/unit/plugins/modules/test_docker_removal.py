"""The module docker_removal, from its arguments to its JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import docker_removal as rules
from ansible_collections.gpuhosts.vllm.plugins.modules import docker_removal

from tests.unit.plugins.conftest import RunModule

MARK = "/var/lib/gpuhosts/docker_engine"
GIVEN = {"host": "gpu1", "mark": MARK}


class Host:
    """A host below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.containers: int | None = 0

    def has(self, path: str, content: str = "") -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    def runs(self, namespace: str, *numbers: int) -> None:
        for number in numbers:
            words = ["/usr/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", "0f3b", ""]
            self.has(f"/proc/{number}/cmdline", "\0".join(words))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """One with an engine that the role has installed, and that has nothing to do."""
    made = Host(tmp_path)
    monkeypatch.setattr(docker_removal, "ROOT", tmp_path)
    monkeypatch.setattr(rules, "containers_of", lambda _: made.containers)
    made.has("/usr/bin/dockerd")
    made.has(MARK)
    made.has("/proc/1/cmdline", "/sbin/init\0")
    made.has("/proc/2/cmdline")  # of the kernel
    return made


@pytest.mark.usefixtures("host")
def test_what_the_role_has_installed_may_go(run_module: RunModule) -> None:
    result = run_module(docker_removal, **GIVEN)
    assert (result["changed"], result["may_go"], result["stays"]) == (False, True, "")


def test_what_it_has_found_stays_unless_somebody_says_otherwise(run_module: RunModule, host: Host) -> None:
    (host.root / MARK.lstrip("/")).unlink()
    host.containers = 3  # of others, and none of our business
    result = run_module(docker_removal, **GIVEN)
    assert not result["may_go"]
    assert result["stays"] == (
        "gpu1: nothing says that the role docker_engine has installed its Docker; it stays. "
        "docker_engine_absent_unmarked=true removes it."
    )
    host.containers = 0
    assert run_module(docker_removal, **GIVEN, unmarked=True)["may_go"]


def test_where_there_is_none_nothing_is_said(run_module: RunModule, host: Host) -> None:
    for path in (MARK, "/usr/bin/dockerd"):
        (host.root / path.lstrip("/")).unlink()
    host.containers = None
    result = run_module(docker_removal, **GIVEN)
    assert (result["may_go"], result["stays"]) == (False, "")


def test_one_that_has_containers_is_refused(run_module: RunModule, host: Host) -> None:
    host.containers = 2
    assert run_module(docker_removal, **GIVEN, unasked=True)["msg"] == (
        "gpu1 has 2 containers. Remove them with `docker container rm --force`, or leave Docker on it with "
        "teardown_hardware=false."
    )


def test_one_that_does_not_answer_is_not_taken_for_one_without_containers(run_module: RunModule, host: Host) -> None:
    host.containers = None
    silent = "gpu1: its Docker Engine does not answer, so nobody can tell whether it has containers"
    remedy = (
        ". Start it with `systemctl start docker`, or set docker_engine_absent_unasked=true to remove it all the same."
    )
    assert run_module(docker_removal, **GIVEN)["msg"] == silent + remedy
    host.runs("moby", 10, 11)  # live-restore
    assert run_module(docker_removal, **GIVEN)["msg"] == f"{silent}; 2 of them run without it{remedy}"
    assert run_module(docker_removal, **GIVEN, unasked=True)["may_go"]


def test_a_run_that_was_cut_short_after_the_packages_goes_on(run_module: RunModule, host: Host) -> None:
    (host.root / "usr/bin/dockerd").unlink()
    host.containers = None
    assert run_module(docker_removal, **GIVEN)["may_go"]


def test_a_containerd_that_others_use_is_refused(run_module: RunModule, host: Host) -> None:
    host.runs("moby", 10)
    host.runs("k8s.io", 11, 12)
    told = run_module(docker_removal, **GIVEN)["msg"]
    assert told.startswith("gpu1 runs 2 containers of others than Docker by the same containerd, as Kubernetes does. ")
