"""The container toolkit as dnf installs and locks it, and the engine that it has told of GPUs."""

from __future__ import annotations

import json
from typing import Any

NAMES = (
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
)


def versions(host: Any) -> set[str]:
    return set(host.check_output("rpm --query --queryformat '%{VERSION}-%{RELEASE}\\n' " + " ".join(NAMES)).split())


def test_the_pinned_version_is_installed_and_an_upgrade_of_the_host_leaves_it_there(host: Any) -> None:
    assert versions(host) == {"1.20.1-1"}
    assert "1.21.0" in host.check_output("dnf --quiet --disableplugin=versionlock repoquery nvidia-container-toolkit")

    host.check_output("dnf --assumeyes upgrade")

    assert versions(host) == {"1.20.1-1"}


def test_the_index_of_the_repository_is_signed_and_that_is_looked_at(host: Any) -> None:
    index = "/srv/repository/libnvidia-container/stable/rpm/x86_64/repodata/repomd.xml.asc"
    host.check_output(f"mv {index} /tmp/")

    refused = host.run("dnf --setopt=nvidia-container-toolkit.skip_if_unavailable=0 --refresh makecache")

    host.check_output(f"mv /tmp/repomd.xml.asc {index}")
    assert refused.rc != 0
    assert host.run("dnf --refresh makecache").rc == 0


def test_the_engine_hands_out_gpus(host: Any) -> None:
    info = json.loads(host.check_output("docker info --format '{{ json . }}'"))
    assert info["Runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert info["CDISpecDirs"]
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert settings["live-restore"] is True
    assert settings["features"]["cdi"] is True


def test_the_specification_will_be_refreshed_when_there_is_a_driver(host: Any) -> None:
    assert host.service("nvidia-cdi-refresh.path").is_enabled
    assert host.service("nvidia-cdi-refresh.service").is_enabled
