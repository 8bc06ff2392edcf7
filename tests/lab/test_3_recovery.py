"""How engines end, and what the hosts mend by themselves."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

from .conftest import machine, playbook
from .settings import STATE

ADDRESSES = {"gpu1": "172.29.250.21", "gpu2": "172.29.250.22"}
UNITS = {"gpu1": "vllm@tiny-llama-1.service", "gpu2": "vllm@tiny-llama-2.service"}
RESTART_SECONDS = 240  # an engine takes 40 to 90 s on two cores; twice that and some


def healthy(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{ADDRESSES[host]}:8000/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def show(host: str, name: str) -> str:
    return str(machine(host).check_output("systemctl show --value --property=%s %s", name, UNITS[host]))


def test_a_stopping_engine_finishes_the_request_in_flight() -> None:
    request = {"model": "tiny-llama", "prompt": "Say hello.", "max_tokens": 480, "ignore_eos": True, "stream": True}

    # The request has to be in flight when the unit is stopped: half a second after its start it is, for seconds.
    stream = machine("gpu2").check_output(
        "curl --silent --no-buffer --json %s --header %s %s & sleep 0.5; systemctl stop %s; wait",
        json.dumps(request),
        f"Authorization: Bearer {(STATE / 'api_key').read_text().strip()}",
        f"http://{ADDRESSES['gpu2']}:8000/v1/completions",
        UNITS["gpu2"],
    )

    log = machine("gpu2").check_output("journalctl --no-pager --unit %s", UNITS["gpu2"])
    assert "draining in-flight requests count=1" in log
    assert '"finish_reason":"length"' in stream
    assert stream.endswith("[DONE]")
    assert (show("gpu2", "ActiveState"), show("gpu2", "Result")) == ("inactive", "success")


def test_keeper_and_systemd_bring_a_killed_engine_back() -> None:
    killed = show("gpu1", "MainPID")
    assert healthy("gpu1")
    machine("gpu1").check_output(
        "pkill --signal KILL --parent %s", killed
    )  # the engine, whose keeper then ends by itself
    machine("gpu2").check_output("systemctl start %s", UNITS["gpu2"])  # at the same time: both are to serve again

    deadline = time.monotonic() + RESTART_SECONDS
    while not (show("gpu1", "MainPID") not in (killed, "0") and healthy("gpu1") and healthy("gpu2")):
        assert time.monotonic() < deadline, machine("gpu1").check_output(
            "journalctl --unit %s --lines 50 --no-pager", UNITS["gpu1"]
        )
        time.sleep(3)

    assert playbook("playbooks/verify.yml").code == 0
