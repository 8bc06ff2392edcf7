"""A host after the role: what lies where, how the service is set up, and who gets an answer from the engine."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "molecule-key"
UNIT = "vllm@tiny-llama-1.service"
CONFIG = "/etc/vllm/instances/tiny-llama-1.yaml"
ENVIRONMENT = "/etc/vllm/instances/tiny-llama-1.env"
CLOSED = {"VLLM_CACHE_ROOT": "/srv/closed"}
URL = "http://127.0.0.1:8000"


def show(host: Any, unit_property: str) -> str:
    return host.check_output("systemctl show --value --property %s %s", unit_property, UNIT)


def engine(host: Any) -> str:
    """The process of the engine, which is the child of its keeper."""
    return host.check_output("pgrep --parent %s", show(host, "MainPID"))


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        (CONFIG, "root", "vllm", 0o640),
        (ENVIRONMENT, "root", "vllm", 0o640),
        ("/etc/vllm/instances/tiny-llama-1.json", "root", "vllm", 0o640),
        ("/opt/vllm/lib/keeper.py", "root", "root", 0o644),
        ("/run/vllm/tiny-llama-1/keeper.prom", "vllm", "vllm", 0o644),
        ("/etc/vllm/secrets.env", "root", "root", 0o600),
        ("/etc/systemd/system/vllm@.service", "root", "root", 0o644),
        ("/etc/systemd/system/vllm@tiny-llama-1.service.d/places.conf", "root", "root", 0o644),
        ("/var/lib/vllm", "vllm", "vllm", 0o750),
        ("/srv/huggingface", "vllm", "vllm", 0o750),
        ("/opt/vllm/versions", "root", "root", 0o755),
    ],
)
def test_files_belong_to_whom_they_should(host: Any, path: str, user: str, group: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == (user, group, mode)


def test_the_service_user_cannot_log_in(host: Any) -> None:
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
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("StartLimitIntervalUSec", "0"),
        ("WatchdogUSec", "15s"),
        ("WatchdogSignal", "9"),
        ("RuntimeDirectoryPreserve", "restart"),
        ("KillMode", "mixed"),
        ("SendSIGKILL", "yes"),
        ("TimeoutStopUSec", "2min"),
        ("TimeoutStartUSec", "infinity"),
        ("RemoveIPC", "yes"),
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
def test_the_unit_is_robust_and_sandboxed_but_sees_gpus(host: Any, unit_property: str, value: str) -> None:
    assert show(host, unit_property) == value


def test_the_engine_runs_from_the_complete_release(host: Any) -> None:
    release = host.file("/opt/vllm/current").linked_to
    assert release.startswith("/opt/vllm/versions/0.33.0+standin-")
    assert host.file(f"{release}/.complete").exists
    # The stand-in's index has no uv, as a mirror of nothing but the packages of a lock; the lab's has it.
    assert host.check_output("cat %s/lib/python3*/site-packages/vllm-*.dist-info/INSTALLER", release) == "pip"
    assert host.file(f"/proc/{engine(host)}/cmdline").content_string.startswith(f"{release}/bin/python")


def test_the_engine_may_write_where_its_environment_tells_it_to_and_nowhere_else(host: Any) -> None:
    host.check_output("chmod 777 /srv/models")
    root = f"/proc/{engine(host)}/root"  # as the engine sees it
    touch = "runuser --user vllm -- touch"
    host.check_output(f"{touch} {root}/srv/huggingface/new {root}/var/lib/vllm/new")
    assert host.run(f"{touch} {root}/srv/models/new").stderr.endswith("Read-only file system\n")


def test_the_key_opens_the_api_and_nothing_else_does(host: Any) -> None:
    request = json.dumps({"model": "tiny-llama", "prompt": "Say hello.", "max_tokens": 8, "ignore_eos": True})

    def answer(key: str) -> tuple[str, dict[str, Any]]:
        output = host.check_output(
            "curl --silent --write-out '\\n%%{http_code}' --json %s --header %s %s",
            request,
            f"Authorization: Bearer {key}",
            f"{URL}/v1/completions",
        )
        body, _, status = output.rpartition("\n")
        return status, json.loads(body)

    assert answer("") == ("401", {"error": "Unauthorized"})
    assert answer("wrong") == ("401", {"error": "Unauthorized"})
    status, completion = answer(KEY)
    assert (status, completion["usage"]["completion_tokens"]) == ("200", 8)
    assert completion["choices"][0]["text"]


def test_the_key_is_for_root_and_the_engine_only(host: Any) -> None:
    variables = host.file(f"/proc/{engine(host)}/environ").content_string
    assert KEY in variables
    assert "GPUHOSTS_KEEPER_TOKEN" not in variables, "the engine has no use for what its keeper knows"
    commands = host.check_output("ps -e -o args")
    assert "vllm serve" in commands
    assert KEY not in commands
    assert KEY not in host.check_output("journalctl --no-pager")
    as_nobody = host.run("runuser --user nobody -- cat /proc/%s/environ /etc/vllm/secrets.env", engine(host))
    assert as_nobody.stderr.count("Permission denied") == 2


def test_the_planner_is_told_what_runs_here(host: Any) -> None:
    fact = json.loads(host.file("/etc/ansible/facts.d/gpuhosts_vllm.fact").content_string)
    assert fact == {
        "version": 2,
        "instances": [
            {
                "id": "tiny-llama-1",
                "model": "tiny-llama",
                "port": 8000,
                "rank": 0,
                "gpus": [{"index": 0, "uuid": "GPU-0"}],
                "tensor": None,
                "master_port": None,
            }
        ],
    }


def test_the_keeper_tells_that_it_serves(host: Any) -> None:
    metrics = host.file("/run/vllm/tiny-llama-1/keeper.prom").content_string
    assert 'gpuhosts_keeper_state{id="tiny-llama-1",rank="0",state="serving"} 1' in metrics.splitlines()
    assert show(host, "StatusText").startswith("serving, epoch ")


@pytest.mark.parametrize("who", ["engine", "keeper", "both"])
def test_whoever_is_killed_all_of_it_starts_anew(host: Any, who: str) -> None:
    processes = {"keeper": show(host, "MainPID"), "engine": engine(host)}
    killed = [process for name, process in processes.items() if who in (name, "both")]
    host.check_output(f"kill -9 {' '.join(killed)}")

    # Not at once: what was killed may still hold the port for a moment, and answer nobody.
    host.check_output("sleep 2; curl --silent --fail --retry 9 --retry-all-errors %s/health", URL)

    assert show(host, "MainPID") != processes["keeper"]
    assert engine(host) != processes["engine"]
    said = {
        "engine": "the engine was killed by SIGKILL",
        "keeper": "the keeper was killed",
        "both": "the keeper was killed",
    }
    assert f'reason="{said[who]}"' in host.file("/run/vllm/tiny-llama-1/keeper.prom").content_string


def test_an_option_that_vllm_refuses_never_reaches_the_service(hosts: list[Any], change: Callable[..., str]) -> None:
    def running() -> list[tuple[str, str]]:
        return [(show(host, "MainPID"), host.file(CONFIG).sha256sum) for host in hosts]

    before = running()

    assert "argument --max-model-len: invalid" in change(more_engine_args={"max-model-len": "plenty"})

    assert running() == before


def test_what_keeps_the_engine_from_a_directory_is_told_with_its_remedy(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    for host in hosts:
        host.check_output("mkdir /srv/closed && echo tmpfs /srv/closed tmpfs mode=755 0 0 >>/etc/fstab")

    for reason in ("and nothing is mounted at /srv/closed, as", "where the user vllm may not write."):
        said = " ".join(change(more_env=CLOSED).split())
        assert f"tiny-llama-1: VLLM_CACHE_ROOT is /srv/closed, {reason}" in said
        (remedy,) = set(re.findall("`((?:mount|chown) [^`]*)`", said))
        for host in hosts:
            host.check_output(remedy)  # after the last one the next run, which has this environment, goes through


def test_a_stopping_engine_finishes_the_request_in_flight(host: Any) -> None:
    request = {"model": "tiny-llama", "prompt": "Say hello.", "max_tokens": 300, "ignore_eos": True, "stream": True}

    # The request has to be in flight when the unit is stopped: half a second after its start it is, for seconds.
    stream = host.check_output(
        "curl --silent --no-buffer --json %s --header %s %s & sleep 0.5; systemctl stop %s; wait",
        json.dumps(request),
        f"Authorization: Bearer {KEY}",
        f"{URL}/v1/completions",
        UNIT,
    )

    assert "draining in-flight requests count=1" in host.check_output("journalctl --no-pager --unit %s", UNIT)
    assert '"finish_reason":"length"' in stream
    assert stream.endswith("[DONE]")
    assert (show(host, "ActiveState"), show(host, "Result")) == ("inactive", "success")


def test_a_stopped_instance_is_started_again(hosts: list[Any], change: Callable[..., str]) -> None:
    assert not change(more_env=CLOSED)

    assert [show(host, "ActiveState") for host in hosts] == ["active", "active"]


def test_a_model_that_is_mounted_late_is_waited_for(host: Any) -> None:
    host.check_output("systemctl stop %s && mv /srv/models /srv/disk && mkdir /srv/models", UNIT)
    host.check_output("systemctl start --no-block %s", UNIT)
    time.sleep(3)
    assert (show(host, "ActiveState"), show(host, "SubState"), show(host, "NRestarts")) == (
        "activating",
        "start-pre",
        "0",
    )
    said = "Waits for /srv/models/tiny-llama, which is not there"
    assert said in host.check_output("journalctl --no-pager --unit %s", UNIT)

    host.check_output("mount --bind /srv/disk /srv/models")

    # A start that is under way ends when the unit is up; curl waits for the engine.
    host.check_output("systemctl start %s && curl --silent --fail --retry 9 --retry-all-errors %s/health", UNIT, URL)


def test_the_firewall_lets_in_who_may_reach_the_engine(hosts: list[Any]) -> None:
    firewalled, other = hosts
    assert other.run("curl --silent --fail http://vllm-bookworm:8000/health").rc == 0
    assert firewalled.check_output("ufw status").count("# gpuhosts-vllm") == 1
    address = firewalled.check_output("hostname --all-ip-addresses").split()[0]
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((address, 8000), timeout=2)


def test_an_instance_that_is_not_wanted_any_more_goes(hosts: list[Any], change: Callable[..., str]) -> None:
    assert not change(instances=[])

    for host in hosts:
        assert (show(host, "ActiveState"), show(host, "UnitFileState")) == ("inactive", "disabled")
        assert not host.file(CONFIG).exists
        assert not host.file("/etc/systemd/system/vllm@tiny-llama-1.service.d").exists
        assert host.file("/etc/vllm/instances").listdir() == []
        assert host.run("pgrep --uid vllm").stdout == ""
    assert "gpuhosts-vllm" not in hosts[0].check_output("ufw status")
