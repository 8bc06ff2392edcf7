"""Alerts on their way from a rule by Alertmanager to a webhook, and silences; all of it real but the webhook."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RECEIVER = Path(__file__).resolve().parents[1] / "receiver.py"
TOLD = "/tmp/told"
FIRING, RESOLVED = "NodeAway firing /secret-path", "NodeAway resolved /secret-path"
CONFIGURATION = "/etc/alertmanager/alertmanager.yml"
Play = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def listening(hosts: list[Any]) -> Iterator[list[Any]]:
    """The hosts, each with a webhook; their node exporters run in the end, whatever became of the test."""
    for host in hosts:
        host.check_output("systemd-run --unit=receiver python3 -c %s %s", RECEIVER.read_text(), TOLD)
    yield hosts
    for host in hosts:
        host.check_output("systemctl start prometheus-node-exporter; systemctl stop receiver; rm -f " + TOLD)


@pytest.fixture
def silence(play: Play) -> Callable[..., bool]:
    def run(seconds: int, *alerts: dict[str, list[str]]) -> bool:
        result = play("silence.yml", "--extra-vars", json.dumps({"alerts": alerts, "seconds": seconds}))
        assert result.returncode == 0, result.stdout
        return "changed: [" in result.stdout

    return run


def wait_for(hosts: list[Any], what: Callable[[Any], Any], expected: Any) -> None:
    deadline = time.monotonic() + 40
    for host in hosts:
        while (now := what(host)) != expected:
            assert time.monotonic() < deadline, now
            time.sleep(0.5)


def told(host: Any) -> list[str]:
    """The lines about our alert; rules of the role may find something, too."""
    return [line for line in host.run(f"cat {TOLD}").stdout.splitlines() if line.startswith("NodeAway ")]


def state(host: Any) -> str:
    alerts = json.loads(host.check_output("curl --silent --fail http://127.0.0.1:9093/api/v2/alerts"))
    return "".join(alert["status"]["state"] for alert in alerts if alert["labels"]["alertname"] == "NodeAway")


@pytest.mark.parametrize(("name", "user"), [("prometheus", "prometheus"), ("alertmanager", "alertmanager")])
def test_both_run_in_a_sandbox_that_scores_well(
    host: Any, name: str, user: str, exposure: Callable[[Any, str], float]
) -> None:
    assert host.service(name).is_running
    assert host.service(name).is_enabled
    assert host.check_output("systemctl show --value --property User %s", name) == user
    assert exposure(host, name) <= 3.0


def test_alertmanager_listens_on_the_given_address_only_and_not_for_a_cluster(host: Any) -> None:
    sockets = host.check_output("ss --listening --numeric --tcp --udp --processes | grep alertmanager").splitlines()

    assert [line.split()[4] for line in sockets] == ["127.0.0.1:9093"]


def test_its_secrets_are_roots_alone(host: Any) -> None:
    secret = host.file("/etc/alertmanager/secrets/hook")

    assert (secret.user, secret.mode) == ("root", 0o600)
    assert "secret-path" not in host.file(CONFIGURATION).content_string


def test_an_alert_comes_to_the_webhook_and_so_does_its_end(listening: list[Any]) -> None:
    for host in listening:
        host.check_output("systemctl stop prometheus-node-exporter")
    wait_for(listening, told, [FIRING])
    for host in listening:
        host.check_output("systemctl start prometheus-node-exporter")
    wait_for(listening, told, [FIRING, RESOLVED])


def test_a_silence_keeps_an_alert_back_and_lifting_it_tells_it(
    listening: list[Any], silence: Callable[..., bool]
) -> None:
    away = {"host": ["elsewhere", "here"]}
    for host in listening:
        host.check_output(f"rm -f {TOLD}")

    assert silence(3600, away)
    assert not silence(3600, away)
    for host in listening:
        host.check_output("systemctl stop prometheus-node-exporter")
    wait_for(listening, state, "suppressed")
    time.sleep(3)  # of group_wait and group_interval
    assert [told(host) for host in listening] == [[] for _ in listening]

    assert silence(1)
    wait_for(listening, told, [FIRING])
    wait_for(listening, state, "active")


def test_a_broken_configuration_never_takes_the_place_of_the_old_one(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [host.file(CONFIGURATION).sha256sum for host in hosts]

    said = " ".join(change(alertmanager_route={"receiver": "absent"}).replace("\\", "").split())

    assert 'undefined receiver "absent"' in said

    assert [host.file(CONFIGURATION).sha256sum for host in hosts] == before


def test_another_secret_is_another_address_at_once(listening: list[Any], change: Callable[..., str]) -> None:
    assert not change(alertmanager_secrets={"hook": "http://127.0.0.1:9095/another"})
    wait_for(listening, state, "")  # of the test before

    for host in listening:
        host.check_output(f"rm -f {TOLD}; systemctl stop prometheus-node-exporter")

    wait_for(listening, told, ["NodeAway firing /another"])
