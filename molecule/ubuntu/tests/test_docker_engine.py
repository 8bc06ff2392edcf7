"""Docker and the container toolkit on Ubuntu: the distribution's engine, and that of Docker's repository."""

from __future__ import annotations

import json
from typing import Any

TOOLKIT = (
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
)
DOCKERS = {
    "containerd.io": "2.3.4-1~ubuntu.26.04~resolute",
    "docker-ce": "5:29.7.2-1~ubuntu.26.04~resolute",
    "docker-ce-cli": "5:29.7.2-1~ubuntu.26.04~resolute",
}


def test_the_engine_runs_with_settings_and_runtime(host: Any) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    info = json.loads(host.check_output("docker info --format '{{ json . }}'"))
    assert (info["LiveRestoreEnabled"], info["LoggingDriver"]) == (True, "json-file")
    assert info["Runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert bool(info.get("CDISpecDirs")) is (host.backend.name == "ubuntu-2604")


def test_exact_versions_are_installed_and_held(host: Any) -> None:
    wanted = dict.fromkeys(TOOLKIT, "1.20.1-1") | (DOCKERS if host.backend.name == "ubuntu-2604" else {})
    output = host.check_output("dpkg-query --show --showformat '${Package} ${Version}\\n' " + " ".join(wanted))
    assert dict(line.split(" ") for line in output.splitlines()) == wanted
    assert set(wanted) <= set(host.check_output("apt-mark showhold").split())
    upgrades = host.check_output("apt-get --simulate dist-upgrade").splitlines()
    assert not [line for line in upgrades if line.startswith("Inst") and line.split()[1] in wanted]
