"""What the tests of the engine and of the toolkit share."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 30  # in which a unit that was triggered comes to its end


class Engine:
    """The engine of a host, and what runs in it."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.name: str = host.backend.name  # of the container that the host is
        self.source = "docker" if "vendor" in self.name else "distro"
        self.version: str = host.check_output("docker version --format '{{ .Server.Version }}'")

    def run(self, name: str) -> int:
        """Start a container of that name anew; returns the process ID of its program."""
        self.host.run(f"docker rm --force {name}")
        # It outlives every test; removing the container ends it.
        self.host.check_output(f"docker run --detach --name {name} tiny sleep 1000000")
        return self.pid(name)

    def pid(self, name: str) -> int:
        """Process ID of a container's program; 0 when it does not run."""
        return int(self.host.check_output("docker inspect --format '{{ .State.Pid }}' " + name))

    @property
    def start(self) -> str:
        """Something else after every start of the engine."""
        # Every test is its own start, and systemd refuses the fourth within a minute.
        self.host.check_output("systemctl reset-failed docker.service docker.socket")
        return self.host.check_output("systemctl show --property=InvocationID --value docker.service")


class Machine:
    """A host with a GPU, and how its containers ask for it."""

    specification = "/var/run/cdi/nvidia.yaml"

    def __init__(self, host: Any) -> None:
        self.host = host
        self.name: str = host.backend.name  # of the container that the host is
        self.mode = "legacy" if self.name == "containers-bookworm" else "cdi"

    @property
    def settings(self) -> dict[str, Any]:
        return json.loads(self.host.file("/etc/docker/daemon.json").content_string)

    @property
    def devices(self) -> dict[str, Any]:
        """The devices of the CDI specification by name."""
        specification = yaml.safe_load(self.host.file(self.specification).content_string)
        return {device["name"]: device["containerEdits"] for device in specification["devices"]}

    def start(self, name: str) -> None:
        """Start a container with all GPUs."""
        asking = {"cdi": "--device nvidia.com/gpu=all", "legacy": "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=all"}
        self.host.run(f"docker rm --force {name}")
        # It outlives every test; removing the container ends it.
        self.host.check_output(f"docker run --detach --name {name} {asking[self.mode]} tiny sleep 1000000")

    def has_gpu(self, name: str) -> bool:
        """Whether a container may use its GPU; false when it has lost the right to."""
        result = self.host.run(f"docker exec {name} sh -c ': >/dev/nvidia0'")
        assert not result.stderr or "Operation not permitted" in result.stderr, result.stderr
        return result.rc == 0

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Whether something becomes true in time."""
        deadline = time.monotonic() + _SECONDS
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.5)
        return condition()


@pytest.fixture(scope="session")
def machines(hosts_with_image: list[Any]) -> list[Machine]:
    """All hosts."""
    return [Machine(host) for host in hosts_with_image]


@pytest.fixture(scope="session")
def engines(hosts_with_image: list[Any]) -> list[Engine]:
    """The engines of all hosts."""
    return [Engine(host) for host in hosts_with_image]
