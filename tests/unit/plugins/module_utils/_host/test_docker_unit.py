"""With which flags the unit of a Docker Engine starts it, and what of daemon.json goes with them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ContainersError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker_unit import Unit, read_unit, validation

VENDORS = "/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock"
DEBIANS = "/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS"


def shown(command: str, *more: str) -> str:
    """What `systemctl show` says of such a unit (systemd 252)."""
    program = command.partition(" ")[0]
    start = f"ExecStart={{ path={program} ; argv[]={command} ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}"
    return "\n".join([start, *more])


def unit(root: Path, command: str, *more: str) -> Unit:
    return read_unit(root, lambda _: shown(command, *more))


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(
    ("command", "program", "flags"),
    [
        (VENDORS, "/usr/bin/dockerd", "-H fd:// --containerd=/run/containerd/containerd.sock"),
        ("/usr/bin/dockerd", "/usr/bin/dockerd", ""),
        ("/usr/bin/dockerd --log-driver=journald", "/usr/bin/dockerd", "--log-driver=journald"),
        ("/usr/bin/dockerd --log-opt tag={{.Name}}", "/usr/bin/dockerd", "--log-opt tag={{.Name}}"),
        ("/usr/bin/dockerd --label it's", "/usr/bin/dockerd", "--label it's"),
        # Nobody knows what a script makes of its words.
        ("/usr/local/bin/start-docker --fast", "dockerd", ""),
    ],
)
def test_the_flags_of_a_unit(tmp_path: Path, command: str, program: str, flags: str) -> None:
    assert unit(tmp_path, command) == Unit(program, tuple(flags.split()))


def test_without_a_unit_there_are_none(tmp_path: Path) -> None:
    assert read_unit(tmp_path, lambda _: "") == Unit()


def test_variables_are_those_of_the_unit_and_of_its_files_which_win(tmp_path: Path) -> None:
    more = ("Environment=DOCKER_OPTS=--debug LEVEL=info", "EnvironmentFiles=/etc/default/docker (ignore_errors=yes)")
    command = f"{DEBIANS} --log-level=${{LEVEL}} --label=a$$b --tag=$UNSET"
    assert unit(tmp_path, command, *more).flags[3:] == ("--debug", "--log-level=info", "--label=a$b", "--tag=$UNSET")

    write(
        tmp_path, "etc/default/docker", '# Docker\nDOCKER_OPTS="--log-driver=journald --dns 8.8.8.8"\n\nno assignment\n'
    )
    found = unit(tmp_path, command, *more).flags
    assert found[3:7] == ("--log-driver=journald", "--dns", "8.8.8.8", "--log-level=info")
    assert unit(tmp_path, DEBIANS).flags[3:] == ()


@pytest.mark.parametrize("flag", ["--config-file=/srv/docker.json", "--config-file /srv/docker.json"])
def test_a_unit_that_reads_another_file_is_refused(tmp_path: Path, flag: str) -> None:
    assert unit(tmp_path, f"/usr/bin/dockerd {flag} --debug") == Unit(
        "/usr/bin/dockerd", ("--debug",), "/srv/docker.json"
    )
    with pytest.raises(ContainersError, match=r"^gpu1: docker\.service starts .* --config-file /srv/docker\.json"):
        validation(tmp_path, lambda _: shown(f"/usr/bin/dockerd {flag}"), "gpu1")
    same = "--config-file=/etc/docker/daemon.json"
    assert unit(tmp_path, f"/usr/bin/dockerd {same}") == Unit("/usr/bin/dockerd")


@pytest.mark.parametrize(
    ("answer", "command"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", ""),
        (
            "Docker version 29.7.2, build 1",
            "/usr/bin/dockerd --validate --config-file %s -H fd:// --containerd=/run/containerd/containerd.sock",
        ),
        ("", ""),
    ],
)
def test_who_validates_settings(tmp_path: Path, answer: str, command: str) -> None:
    def run(words: Sequence[str]) -> str:
        return shown(VENDORS) if words[0] == "systemctl" else answer

    assert validation(tmp_path, run, "gpu1") == command


def test_a_word_with_a_space_stays_one(tmp_path: Path) -> None:
    more = """Environment="LABEL=--label='a b'" OTHER=1"""

    def run(words: Sequence[str]) -> str:
        return shown("/usr/bin/dockerd $LABEL", more) if words[0] == "systemctl" else "Docker version 29.7.2"

    words = shlex.split(validation(tmp_path, run, "gpu1"))
    assert words == ["/usr/bin/dockerd", "--validate", "--config-file", "%s", "--label=a b"]
