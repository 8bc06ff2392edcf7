"""What the tests of the engine share."""

from __future__ import annotations

from typing import Any

import pytest


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


@pytest.fixture(scope="session")
def engines(hosts_with_image: list[Any]) -> list[Engine]:
    """The engines of all hosts."""
    return [Engine(host) for host in hosts_with_image]
