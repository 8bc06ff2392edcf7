"""A host after the role: what lies where, how the service is set up, and who gets an answer from the engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

KEY = "molecule-key"
UNIT = "vllm@tiny-llama-1.service"
CONFIG = "/etc/vllm/instances/tiny-llama-1.yaml"
ENVIRONMENT = "/etc/vllm/instances/tiny-llama-1.env"
URL = "http://127.0.0.1:8000"


def show(host: Host, unit_property: str) -> str:
    return host.check_output("systemctl show --value --property %s %s", unit_property, UNIT)


def converge(host: Host, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's play once more on this host, with other variables."""
    command = ["ansible-playbook", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"]]
    command += ["--limit", host.backend.get_hostname(), "--extra-vars", json.dumps(variables)]
    playbook = str(Path(__file__).parents[1] / "converge.yml")
    return subprocess.run([*command, playbook], text=True, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        (CONFIG, "root", "vllm", 0o640),
        (ENVIRONMENT, "root", "vllm", 0o640),
        ("/etc/vllm/secrets.env", "root", "root", 0o600),
        ("/etc/systemd/system/vllm@.service", "root", "root", 0o644),
        ("/var/lib/vllm", "vllm", "vllm", 0o750),
        ("/opt/vllm/versions", "root", "root", 0o755),
    ],
)
def test_files_belong_to_whom_they_should(host: Host, path: str, user: str, group: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == (user, group, mode)


def test_the_service_user_cannot_log_in(host: Host) -> None:
    user = host.user("vllm")
    assert (user.shell, user.home) == ("/usr/sbin/nologin", "/var/lib/vllm")
    assert host.check_output("passwd --status vllm").split()[1] == "L"


@pytest.mark.parametrize(
    ("unit_property", "value"),
    [
        ("ActiveState", "active"),
        ("UnitFileState", "enabled"),
        ("User", "vllm"),
        ("Restart", "always"),
        ("StartLimitBurst", "5"),
        ("KillMode", "mixed"),
        ("SendSIGKILL", "yes"),
        ("TimeoutStopUSec", "2min"),
        ("LimitMEMLOCK", "infinity"),
        ("LimitNOFILE", "65536"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("PrivateDevices", "no"),
        ("DevicePolicy", "auto"),
        ("DeviceAllow", ""),
    ],
)
def test_the_unit_is_robust_and_sandboxed_but_sees_gpus(host: Host, unit_property: str, value: str) -> None:
    assert show(host, unit_property) == value


def test_the_engine_runs_from_the_complete_release(host: Host) -> None:
    release = host.file("/opt/vllm/current").linked_to
    assert release.startswith("/opt/vllm/versions/0.32.0+cpu-")
    assert host.file(f"{release}/.complete").exists
    assert host.file(f"/proc/{show(host, 'MainPID')}/cmdline").content_string.startswith(f"{release}/bin/python")


def test_the_key_opens_the_api_and_nothing_else_does(host: Host) -> None:
    ask = ["curl", "--silent", "--output", "/tmp/answer", "--write-out", "%{http_code}", f"{URL}/v1/completions"]  # noqa: S108
    ask += ["--json", json.dumps({"model": "tiny-llama", "prompt": "Hello", "max_tokens": 8, "ignore_eos": True})]

    def status(*header: str) -> str:
        return host.check_output(" ".join(["%s"] * (len(ask) + len(header))), *ask, *header)

    assert status() == "401"
    assert status("--header", "Authorization: Bearer wrong") == "401"
    assert status("--header", f"Authorization: Bearer {KEY}") == "200"
    answer = json.loads(host.file("/tmp/answer").content_string)  # noqa: S108
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["choices"][0]["text"]


def test_the_key_is_for_root_and_the_engine_only(host: Host) -> None:
    assert KEY in host.file(f"/proc/{show(host, 'MainPID')}/environ").content_string
    commands = host.check_output("ps -e -o args")
    assert "vllm serve" in commands
    assert KEY not in commands
    assert KEY not in host.check_output("journalctl --no-pager")
    as_nobody = host.run("setpriv --reuid nobody --regid nogroup --clear-groups cat /proc/%s/environ", show(host, "MainPID"))
    assert "Permission denied" in as_nobody.stderr


def test_caches_stay_in_the_state_directory(host: Host) -> None:
    written = host.check_output("find / -xdev -newer /etc/vllm/secrets.env -user vllm -not -path '/var/lib/vllm*' -not -path '/tmp/*'")
    assert written == ""
    assert not host.file("/root/.cache").exists
    assert not host.file("/root/.config").exists


def test_the_planner_is_told_what_runs_here(host: Host) -> None:
    fact = json.loads(host.file("/etc/ansible/facts.d/gpuhosts_vllm.fact").content_string)
    assert fact == {
        "version": 1,
        "instances": [{"id": "tiny-llama-1", "model": "tiny-llama", "port": 8000, "gpus": [0]}],
    }


def test_an_option_that_vllm_refuses_never_reaches_the_service(host: Host) -> None:
    before = (show(host, "MainPID"), host.file(CONFIG).content_string)
    run = converge(host, more_engine_args={"max-model-len": "plenty"})
    assert run.returncode != 0
    assert "argument --max-model-len: invalid" in run.stdout
    assert (show(host, "MainPID"), host.file(CONFIG).content_string) == before


def test_an_instance_that_is_not_wanted_any_more_goes(host: Host) -> None:
    run = converge(host, instances=[])
    assert run.returncode == 0, run.stdout
    assert (show(host, "ActiveState"), show(host, "UnitFileState")) == ("inactive", "disabled")
    assert not host.file(CONFIG).exists
    assert not host.file(ENVIRONMENT).exists
    assert host.run("pgrep --uid vllm").stdout == ""
