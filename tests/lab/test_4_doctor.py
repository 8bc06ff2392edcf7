"""The doctor on hosts that serve: all well, then with faults that were put there."""

from __future__ import annotations

import itertools
import json

from .conftest import machine, playbook
from .settings import REPORTS

FAULTS = {
    "driver_unheld": ("apt-mark unhold libnvidia-ml1", "apt-mark hold libnvidia-ml1"),
    "gpu_lost": (
        "printf '[gpu 1]\\nlost = yes\\n' >> /etc/fake-nvml.conf",
        "sed --in-place '/^lost = yes$/d' /etc/fake-nvml.conf",
    ),
    "reboot_pending": ("touch /run/reboot-required", "rm /run/reboot-required"),
}


def found(*lists: str) -> dict[str, set[str]]:
    """Codes by host in these lists of the verdict."""
    verdict = json.loads((REPORTS / "doctor.json").read_text())
    hosts: dict[str, set[str]] = {}
    for entry in itertools.chain.from_iterable(verdict[name] for name in lists):
        hosts.setdefault(entry["host"], set()).add(entry["code"])
    return hosts


def test_hosts_that_serve_are_well() -> None:
    run = playbook("playbooks/doctor.yml", "--become")
    assert found("failures") == {}
    assert run.code == 0
    assert run.changed == {}


def test_faults_are_found_and_told_by_the_exit_code() -> None:
    gpu2 = machine("gpu2")
    for inject, _ in FAULTS.values():
        gpu2.check_output(inject)
    try:
        run = playbook("playbooks/doctor.yml", "--become")
    finally:
        for _, mend in FAULTS.values():
            gpu2.check_output(mend)
    assert run.code != 0
    assert set(found("failures")) == {"gpu2"}
    assert found("failures", "warnings")["gpu2"] >= set(FAULTS)
