"""Docker as the role installs, configures and restarts it, and as it leaves it alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .conftest import Engine

SETTINGS = "/etc/docker/daemon.json"
OURS = {"live-restore": True, "log-driver": "json-file", "log-opts": {"max-size": "100m", "max-file": "5"}}


def settings(host: Any) -> dict[str, Any]:
    return json.loads(host.file(SETTINGS).content_string)


def names(engines: list[Engine]) -> str:
    return ",".join(engine.name for engine in engines)


def write(engines: list[Engine], contents: list[str]) -> None:
    for engine, content in zip(engines, contents, strict=True):
        engine.host.check_output("printf %%s %s > %s", content, SETTINGS)


def test_the_settings_are_merged_with_those_that_were_there(host: Any) -> None:
    found = settings(host)

    assert found["storage-driver"] == "overlay2"
    assert found["labels"] == ["site=lab"]
    assert found["log-opts"] == {"labels": "site", **OURS["log-opts"]}
    assert found["live-restore"] is True


def test_the_engine_runs_with_them_now_and_at_every_boot(host: Any) -> None:
    assert host.service("docker").is_enabled
    assert host.service("docker").is_running
    info = json.loads(host.check_output("docker info --format '{{ json . }}'"))
    assert (info["Driver"], info["LiveRestoreEnabled"], info["LoggingDriver"]) == ("overlay2", True, "json-file")
    assert "site=lab" in info["Labels"]


def test_a_run_with_nothing_to_do_is_short_and_asks_no_package_manager(
    engines: list[Engine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = converge()

    assert "Packages |" not in result.stdout
    recaps = re.findall(r"ok=(\d+) +changed=(\d+) +unreachable=0 +failed=0 +skipped=(\d+)", result.stdout)
    assert [changed for _, changed, _ in recaps] == ["0"] * len(engines), result.stdout
    assert all(int(ok) + int(skipped) <= 11 for ok, _, skipped in recaps), recaps  # facts included


def test_a_container_runs_and_its_log_is_bounded(engines: list[Engine]) -> None:
    for engine in engines:
        assert engine.run("tiny")
        log = json.loads(engine.host.check_output("docker inspect --format '{{ json .HostConfig.LogConfig }}' tiny"))
        assert log["Config"]["max-size"] == "100m"
        assert engine.host.check_output("docker exec tiny sh -c 'echo from inside'") == "from inside"


def test_containers_outlive_the_restart_with_which_live_restore_begins(
    engines: list[Engine], change: Callable[..., str], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert not change(docker_engine_settings={"live-restore": False})
    before = [(engine.run("survivor"), engine.start) for engine in engines]

    assert converge().returncode == 0

    for engine, (pid, start) in zip(engines, before, strict=True):
        assert engine.start != start
        assert engine.pid("survivor") == pid


def test_a_broken_file_stops_the_run_before_anything_is_changed(
    engines: list[Engine], change: Callable[..., str]
) -> None:
    broken = "{\n  'debug': true\n}\n"
    before = [(engine.start, engine.host.file(SETTINGS).content_string) for engine in engines]
    write(engines, [broken] * len(engines))

    output = change()

    found = [(engine.start, engine.host.file(SETTINGS).content_string) for engine in engines]
    write(engines, [content for _, content in before])
    assert " ".join(output.split()).count(f"{SETTINGS}, line 2, column 3: not JSON") >= len(engines), output
    assert found == [(start, broken) for start, _ in before]


def test_what_the_engine_would_not_start_with_never_reaches_it(
    engines: list[Engine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """From version 23.0 on; before, only the syntax can be checked."""
    engines = [engine for engine in engines if not engine.version.startswith("20.10.")]
    before = [(engine.start, settings(engine.host)) for engine in engines]
    variables = json.dumps({"docker_engine_settings": {"nonsense": True}})

    result = converge("--limit", names(engines), "--extra-vars", variables)

    complaint = "match any configuration option: nonsense"
    assert " ".join(result.stdout.split()).count(complaint) >= len(engines)
    assert [(engine.start, settings(engine.host)) for engine in engines] == before


ANEW = r"systemctl cat docker | sed -n 's/^ExecStart=.*/[Service]\nExecStart=\n& --debug/p'"
FLAG = {
    "distro": "echo DOCKER_OPTS=--debug >>/etc/default/docker",
    "docker": f"{ANEW} >{{}} && systemctl daemon-reload",
}
DROP_IN = "/etc/systemd/system/docker.service.d/debug.conf"


def test_a_setting_that_is_a_flag_of_the_unit_as_well_does_not_take_docker_down(
    engines: list[Engine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """By a drop-in, or by the environment of the unit. Engines before 23.0 find out when they start."""
    before = [(engine.start, engine.host.file(SETTINGS).content_string) for engine in engines]
    for engine in engines:
        engine.host.check_output(f"mkdir -p {DROP_IN.rpartition('/')[0]}")
        engine.host.check_output(FLAG[engine.source].format(DROP_IN))

    result = converge("--extra-vars", json.dumps({"docker_engine_settings": {"debug": True}}))

    output = " ".join(result.stdout.split())
    assert output.count("debug: (from flag: true, from file: true)") >= len(engines), output
    for engine, (start, content) in zip(engines, before, strict=True):
        validates = not engine.version.startswith("20.10.")
        assert engine.host.file(SETTINGS).content_string == content
        assert engine.host.service("docker").is_running
        assert (engine.start == start) is validates
    assert output.count("The old file is back, and Docker runs.") >= 1
    assert output.count("Nothing was changed. It answers: unable to configure") >= len(engines) - 1
    for engine in engines:
        engine.host.run("sed -i /DOCKER_OPTS=--debug/d /etc/default/docker")
        engine.host.check_output(f"rm --force {DROP_IN} && systemctl daemon-reload && systemctl restart docker")


def test_an_engine_of_other_packages_is_left_alone(
    engines: list[Engine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    others = {"docker": "docker.io", "distro": "docker-ce"}  # what a source finds on a host of the other one
    before = [(engine.start, engine.host.file(SETTINGS).content_string) for engine in engines]
    for source, package in others.items():
        strangers = [engine for engine in engines if engine.source != source]
        variables = {"docker_engine_source": source, "docker_engine_settings": {"debug": True}}
        result = converge("--limit", names(strangers), "--extra-vars", json.dumps(variables))
        assert result.returncode == 0, result.stdout
        assert result.stdout.count("changed=0") == len(strangers)
        assert " ".join(result.stdout.split()).count(f"{package}") >= len(strangers)
    assert [(engine.start, engine.host.file(SETTINGS).content_string) for engine in engines] == before


def test_an_engine_of_no_package_is_left_alone_but_must_be_recent_enough(
    engines: list[Engine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    program = "/usr/local/bin/dockerd"
    variables = {"docker_engine_settings": {"debug": True}, "docker_engine_minimum_version": "25.0"}
    for engine in engines:
        engine.host.check_output("ln -s /bin/false %s", program)

    result = converge("--extra-vars", json.dumps(variables))

    for engine in engines:
        engine.host.check_output("rm %s", program)
    assert result.stdout.count("changed=0") == len(engines)
    assert result.stdout.count("failed=1") == len([engine for engine in engines if engine.version.startswith("20.10.")])
    assert "a Docker Engine 25.0 or newer is needed" in " ".join(result.stdout.split())
    assert program in result.stdout
    assert all("debug" not in settings(engine.host) for engine in engines)
