"""The main process of an engine in a container, with a stand-in for the command ``docker``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import INSTANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., subprocess.Popen[str]]

WRAPPER = Path(__file__).resolve().parents[3] / "roles/vllm/files/container.py"
FAKE = Path(__file__).with_name("fake_docker.py")
NAME = "vllm-tiny-1"
SECONDS = 20

COUNT = "import time\nfor number in range(1, 31):\n    print(number, flush=True)\n    time.sleep(0.05)\n"
SERVE = """
import signal, sys, time
def stop(number, _):
    print(f"got {number}", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
print("serves", flush=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the stand-in keeps what it knows."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    (programs / "docker").chmod(0o755)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"FAKE_DOCKER": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start the wrapper around a Python program; what is left of both is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(program: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", str(WRAPPER), NAME, *options, "IMAGE", sys.executable, "-c", program]
        process = subprocess.Popen(
            command, env=environment(home), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()
    state = home / f"{NAME}.json"
    pid = json.loads(state.read_text())["Pid"] if state.exists() else 0
    if pid:
        os.kill(pid, signal.SIGKILL)


def reaches(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def log(home: Path) -> str:
    path = home / f"{NAME}.log"
    return path.read_text() if path.exists() else ""


def test_it_says_what_the_container_says_and_ends_as_it_ends(home: Path, start: Start) -> None:
    process = start("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)", "--label=a")
    output, _ = process.communicate(timeout=SECONDS)
    assert sorted(output.splitlines()) == ["one", "two"]
    assert process.returncode == 3

    options = json.loads((home / "options.json").read_text())
    assert options[:2] == ["--detach", f"--name={NAME}"]
    assert f"--user={os.getuid()}:{os.getgid()}" in options
    assert [
        option.partition(":")[0].partition("=")[2].partition("=")[0] for option in options if "ulimit" in option
    ] == [
        "memlock",
        "nofile",
    ]
    assert [option for option in options if option.startswith("--shm-size=")]
    assert options[-1] == "--label=a"


def test_a_signal_reaches_the_engine_which_ends_as_it_likes(home: Path, start: Start) -> None:
    process = start(SERVE)
    assert reaches(lambda: "serves" in log(home))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS)
    assert output.splitlines() == ["serves", f"got {signal.SIGTERM.value}"]
    assert process.returncode == 7


def test_an_engine_that_is_killed_ends_it_at_once(home: Path, start: Start) -> None:
    process = start(SERVE)
    assert reaches(lambda: "serves" in log(home))
    killed = time.monotonic()
    os.kill(json.loads((home / f"{NAME}.json").read_text())["Pid"], signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGKILL
    assert time.monotonic() - killed < 5


def test_a_daemon_that_restarts_ends_nothing_and_no_line_is_lost_or_said_twice(home: Path, start: Start) -> None:
    process = start(COUNT)
    assert reaches(lambda: " 5\n" in log(home))
    (home / "down").touch()
    assert reaches(lambda: " 15\n" in log(home))
    assert process.poll() is None
    (home / "down").unlink()
    output, _ = process.communicate(timeout=SECONDS)
    lines = [line for line in output.splitlines() if "Docker daemon" not in line]
    assert lines == [str(number) for number in range(1, 31)]
    assert process.returncode == 0


def test_a_line_that_comes_after_a_younger_one_is_said(home: Path, start: Start) -> None:
    """Each of the two outputs has a reader of its own in the daemon, which stamps a line before it hands it on."""
    process = start(SERVE)
    assert process.stdout
    assert process.stdout.readline() == "serves\n"
    with (home / f"{NAME}.log").open("a") as written:
        written.write("2020-01-01T00:00:00.000000000Z from the other output\n")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS)
    assert output.splitlines() == ["from the other output", f"got {signal.SIGTERM.value}"]


def test_an_end_while_the_daemon_is_away_is_known_once_it_is_back(home: Path, start: Start) -> None:
    process = start(SERVE)
    assert process.stdout
    assert process.stdout.readline() == "serves\n"
    (home / "down").touch()
    process.send_signal(signal.SIGTERM)  # takes no daemon
    assert reaches(lambda: "got" in log(home))
    time.sleep(1)
    assert process.poll() is None
    (home / "down").unlink()
    output, _ = process.communicate(timeout=SECONDS)
    assert f"got {signal.SIGTERM.value}" in output
    assert process.returncode == 7


def test_a_container_that_cannot_be_started_says_why(home: Path, start: Start) -> None:
    (home / f"{NAME}.json").write_text(json.dumps({"Pid": 0}))  # somebody has the name
    process = start(COUNT)
    output, _ = process.communicate(timeout=SECONDS)
    assert "Conflict. The name vllm-tiny-1 is in use." in output
    assert process.returncode == 125


def removal(home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(WRAPPER), NAME]
    return subprocess.run(command, env=environment(home), text=True, capture_output=True, check=False)


def test_what_is_left_of_an_instance_goes_and_nothing_else(home: Path) -> None:
    own = home / f"{NAME}.json"
    own.write_text(json.dumps({"Id": "0f3b", "Label": "tiny-1", "Image": "gpuhosts/vllm:1"}))
    other = home / f"{NAME}0.json"
    other.write_text(json.dumps({"Id": "77aa", "Label": "tiny-10", "Image": "gpuhosts/vllm:1"}))
    for _ in range(2):  # where there is none any more, there is nothing to do
        done = removal(home)
        assert (done.returncode, done.stdout) == (0, "")
        assert (own.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize("label", ["", "tiny-2"])
def test_a_strangers_container_of_its_name_stays(home: Path, label: str) -> None:
    foreign = home / f"{NAME}.json"
    foreign.write_text(json.dumps({"Id": "0f3b", "Label": label, "Image": "registry.example/vllm:own"}))
    done = removal(home)
    assert foreign.exists()
    assert done.returncode == 1
    assert done.stdout == (
        f"ERROR: the container {NAME} of the image registry.example/vllm:own is none of this collection, and has the "
        f"name of this instance's. Rename it with `docker rename {NAME} OTHER`, or remove it with "
        f"`docker rm --force {NAME}`.\n"
    )


def test_a_daemon_that_does_not_answer_is_not_taken_for_one_without_containers(home: Path) -> None:
    (home / "down").touch()
    done = removal(home)
    assert (done.returncode, done.stdout) == (1, "Cannot connect to the Docker daemon.\n")


def test_the_label_is_the_one_that_its_containers_get() -> None:
    assert f'LABEL = "{INSTANCE}"' in WRAPPER.read_text()


def test_the_end_by_the_oom_killer_is_told(home: Path, start: Start) -> None:
    (home / "oom").touch()
    process = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    output, _ = process.communicate(timeout=SECONDS)
    assert output.splitlines()[-1] == f"ERROR: {NAME}: a process of the container was killed by the OOM killer"
    assert process.returncode == 128 + signal.SIGKILL


def test_two_containers_of_a_name_are_never_taken_for_each_other(home: Path, start: Start) -> None:
    """What is waited for is the process, and not its number or the container's name."""
    process = start(SERVE)
    assert reaches(lambda: "serves" in log(home))
    state = json.loads((home / f"{NAME}.json").read_text())
    (home / f"{NAME}.json").write_text(json.dumps(state | {"Pid": os.getpid()}))
    os.kill(state["Pid"], signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGKILL
