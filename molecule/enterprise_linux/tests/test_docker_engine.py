"""Docker as dnf installs and locks it, with what the kernel of Enterprise Linux 10 lacks."""

from __future__ import annotations

import json
from typing import Any

VERSIONS = {"containerd.io": "2.3.4-1", "docker-ce": "29.7.2-1", "docker-ce-cli": "29.7.2-1"}
NEWER = ("2.4.0-1", "3:29.9.0-1", "1:29.9.0-1")  # of the same, which lie beside them
# There is no registry: an image of one program.
IMAGE = "cp /usr/bin/busybox /tmp/sh && tar --directory=/tmp --create sh | docker import - tiny"


def test_the_pinned_versions_are_installed(host: Any) -> None:
    release = host.check_output("hostname").removeprefix("rocky")
    output = host.check_output("rpm --query --queryformat '%{NAME} %{VERSION}-%{RELEASE}\\n' " + " ".join(VERSIONS))
    assert dict(line.split(" ") for line in output.splitlines()) == {
        name: f"{version}.el{release}" for name, version in VERSIONS.items()
    }


def test_an_upgrade_of_the_host_leaves_them_there(host: Any) -> None:
    offered = host.run("dnf --disableplugin=versionlock --assumeno upgrade").stdout
    assert [version for version in NEWER if version not in offered] == []

    assert "docker-ce" not in host.check_output("dnf --assumeyes upgrade")


def test_it_runs_with_the_roles_settings_now_and_at_every_boot(host: Any) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    info = json.loads(host.check_output("docker info --format '{{ json . }}'"))
    assert (info["LiveRestoreEnabled"], info["LoggingDriver"]) == (True, "json-file")


def test_a_container_runs(host: Any) -> None:
    host.check_output(IMAGE)
    assert host.check_output("docker run --rm tiny /sh -c 'echo from inside'") == "from inside"


def test_only_release_10_needs_more_of_its_kernel(host: Any) -> None:
    kernel = host.check_output("uname -r")
    needed = host.check_output("hostname") == "rocky10"
    assert (host.run(f"rpm --query kernel-modules-extra-{kernel}").rc == 0) is needed
