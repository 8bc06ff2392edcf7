"""Updates under load: those that fail go back by themselves, a dead controller is no harm, and no request fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.lab import stand_in
from tests.lab.conftest import Run
from tests.lab.settings import ROOT

from . import fleet
from .fleet import FRONT_DOOR, GPU1, GPU2, PAIR
from .watch import Watch, about

# Nothing is looked at but the engines: the driver is not the subject, and the stages before have been run.
UPDATE = ("playbooks/update.yml", "--skip-tags", "hardware,preflight")
SOON = json.dumps({"vllm_ready_timeout": 10})
MARK, NOTICE = (f"/etc/ansible/facts.d/gpuhosts_{name}.fact" for name in ("rollback", "maintenance"))


@dataclass
class Load:
    """What became of requests that were asked all the time."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load() -> Iterator[Load]:
    """Four clients that ask the front door for a short answer again and again."""
    seen, end = Load(), threading.Event()

    def ask() -> None:
        while not end.is_set():
            status = fleet.ask(
                (fleet.ADDRESS[FRONT_DOOR], 80), PAIR, max_tokens=20, stand_in={"token_seconds": 0.03}, seconds=30
            )
            if status == 200:
                seen.answers += 1
            else:
                seen.failures.append(f"{time.strftime('%X')} {status}")
            end.wait(0.1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        end.set()
        for thread in threads:
            thread.join()
    print(f"{seen.answers} answers, {len(seen.failures)} failures")


def update(**env: str) -> Run:
    """update.yml with this environment of the pair's engines."""
    return fleet.run(*UPDATE, "-e", SOON, **env)


def environment(host: str) -> str:
    """What the pair's engine of a host is started with."""
    return fleet.shell(host, f"cat /etc/vllm/instances/{PAIR}-*.env")


def drained() -> str:
    return fleet.shell(FRONT_DOOR, "grep 'server .* down;' /etc/nginx/nginx.conf || true")


def assert_well(seen: Load, *variables: str) -> None:
    """Nobody noticed anything, both engines have these variables and serve, and nothing is left over."""
    assert seen.failures == []
    assert seen.answers > 10
    for host in (GPU1, GPU2):
        for variable in variables:
            assert variable in environment(host)
        assert fleet.shell(host, f"ls {NOTICE} 2>/dev/null || true") == ""
    assert drained() == ""


def told(watch: Watch) -> list[tuple[str, str]]:
    """Alerts about the pair or its hosts of which somebody was told since the watch began anew, with their hosts."""
    places = (watch.seen.active, watch.seen.told)
    alerts = [labels for place in places for several in place.values() for labels in several]
    ours = [labels for labels in alerts if about(labels, GPU1) or about(labels, GPU2)]
    return sorted({(labels["alertname"], labels.get("host", "")) for labels in ours})


@pytest.fixture(scope="module", autouse=True)
def known(watch: Watch) -> str:
    """The pair as it is to be before and after each test, and as it comes to be without an alert."""
    watch.anew()
    with load() as seen:
        run = update(WISH="first")
    assert run.code == 0
    assert_well(seen, 'WISH="first"')
    assert told(watch) == []
    return "first"


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"STAND_IN_FAULT": "crash"}, "is not ready"),
        ({"STAND_IN_FAULT": "hang"}, "still not after 10 s"),
        ({"STAND_IN_FAULT": "empty"}, "broke off with finish_reason 'abort'"),
        ({"STAND_IN_START_FAULT": "oom"}, "CUDA out of memory"),
    ],
    ids=["starts and dies", "never answers", "answers nonsense", "dies while it loads"],
)
def test_an_update_that_fails_goes_back_by_itself(env: dict[str, str], reason: str) -> None:
    with load() as seen:
        run = update(WISH="second", **env)

    assert run.code != 0
    assert reason in run.text
    assert f"{GPU1}: Ready | Wait until every instance answers" in run.text
    assert "It was rolled back: it answers again" in run.text
    assert_well(seen, 'WISH="first"')
    assert reason in json.loads(fleet.shell(GPU1, f"cat {MARK}"))["reason"]
    assert fleet.shell(GPU2, f"ls {MARK} 2>/dev/null || true") == ""


def test_one_alert_tells_of_it(watch: Watch) -> None:
    assert watch.wait(lambda seen: "HostRolledBack" in seen.told, 90)
    assert told(watch) == [("HostRolledBack", GPU1)]


def test_a_canary_that_does_not_do_well_goes_back_before_the_others_follow() -> None:
    with load() as seen:
        run = fleet.run(
            *UPDATE, "-e", SOON, "-e", "maintenance_canary_minutes=1", WISH="second", STAND_IN_FAULT="flaky"
        )

    assert run.code != 0
    assert re.search(r"Canary \| .*\d\d\.\d% of \d+ requests failed; 1\.0% is the limit", run.text)
    assert "It was rolled back: it answers again" in run.text
    assert_well(seen, 'WISH="first"')


def test_a_check_tells_wave_by_wave_what_would_stop_and_for_how_long() -> None:
    run = fleet.run(*UPDATE, "--check", "--diff", WISH="second")
    assert run.code == 0
    for host, instance in ((GPU1, f"{PAIR}-1"), (GPU2, f"{PAIR}-2")):
        assert re.search(
            rf"{host}, in the wave of {host}: {instance} would stop .* The start took \d+ s the last time", run.text
        )
    assert '+WISH="second"' in run.text


def test_the_next_run_says_so_and_tries_again() -> None:
    with load() as seen:
        run = update(WISH="second")

    assert run.code == 0
    assert f"{GPU1} was rolled back on" in run.text
    assert_well(seen, 'WISH="second"')
    assert fleet.shell(GPU1, f"ls {MARK} 2>/dev/null || true") == ""
    again = update(WISH="second")
    assert (again.code, again.changed) == (0, {})


# The first words of tasks in the order in which they come; the controller dies when it has begun one.
POINTS = (
    "Work | Tell it",
    "Serve | What has to stop",
    "Enter | Notice that work",
    "Drain | Say it of the servers",
    "Enter | Wait for the requests",
    "Stop | The instances",
    "Configure | What the instances",
    "Start | The instances",
    "Ready | Wait until",
    "Keep | What the instances",
)


@contextlib.contextmanager
def until(point: str, **env: str) -> Iterator[subprocess.Popen[str] | None]:
    """A controller that runs the update and has begun this task or play; None: it has come to its end without."""
    variables = json.dumps(stand_in.VARIABLES | {"vllm_models": fleet.models(**env)})
    command = ["ansible-playbook", "-i", fleet.INVENTORY, *UPDATE, "-e", SOON, "-e", variables]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        waves = False
        for line in process.stdout:
            print(line, end="", flush=True)
            waves = waves or "What has to stop, wave by wave" in line
            if point in line and (waves or not point.startswith(("Drain", "Configure"))):
                yield process
                return
        yield None


def kill_at(point: str, **env: str) -> bool:
    """Run the update until it begins this task or play, and kill the controller with all of its processes."""
    with until(point, **env) as process:
        if process:
            os.killpg(process.pid, signal.SIGKILL)
    return process is not None


def test_a_controller_that_dies_is_no_harm_wherever_it_does() -> None:
    with load() as seen:
        for point in POINTS:
            assert kill_at(point, WISH="third"), point
        run = update(WISH="third")

    assert run.code == 0
    assert_well(seen, 'WISH="third"')


def test_a_second_controller_is_refused_while_the_first_one_works() -> None:
    with load() as seen, until("Enter | Wait for the requests", WISH="fourth") as first:
        assert first
        assert first.stdout
        os.killpg(first.pid, signal.SIGSTOP)
        second = update(WISH="fifth")
        assert 'WISH="fifth"' not in environment(GPU1) + environment(GPU2)
        os.killpg(first.pid, signal.SIGCONT)
        first.stdout.read()
        assert first.wait() == 0

    assert second.code != 0
    assert f"(process {first.pid}) has been changing this fleet since " in second.text
    assert_well(seen, 'WISH="fourth"')
