"""What the hosts mend by themselves."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

from .conftest import machine, playbook

UNIT = "vllm@tiny-llama-1.service"
RESTART_SECONDS = 240  # an engine takes 40 to 90 s on two cores; twice that and some


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_systemd_brings_a_killed_engine_back() -> None:
    host = machine("gpu1")
    killed = host.check_output("systemctl show --property MainPID --value %s", UNIT)
    assert healthy("http://172.29.250.21:8000")
    host.check_output("kill -9 %s", killed)

    deadline = time.monotonic() + RESTART_SECONDS
    while time.monotonic() < deadline:
        now = host.check_output("systemctl show --property MainPID --value %s", UNIT)
        if now not in (killed, "0") and healthy("http://172.29.250.21:8000"):
            break
        time.sleep(3)
    else:
        raise AssertionError(host.check_output("journalctl --unit %s --lines 50 --no-pager", UNIT))

    assert playbook("playbooks/verify.yml").code == 0
