"""What the tests of the toolkit share."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 30  # in which a unit that was triggered comes to its end


class Machine:
    """A host with a GPU, and how its containers ask for it."""

    specification = "/var/run/cdi/nvidia.yaml"

    def __init__(self, host: Any) -> None:
        self.host = host
        self.name: str = host.backend.name  # of the container that the host is
        self.mode = "legacy" if self.name.endswith("toolkit-bookworm") else "cdi"

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
