"""Faults of an instance over two hosts, one after the other, and how long each keeps it from answering.

Goals, in seconds after the fault, beyond what the engine itself takes to start, which the keeper of the epoch that
answers again tells: 10 after a death, 25 after silence, one and a half times ``hang`` and 5 after a hang. A clean stop
has 5, once the last request has its answer. What a rebooted host itself takes until it can start units does not count:
that is the machine's time, seconds here and minutes on a server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import site
from .site import HEAD, UNIT, WORKER, shell

DEATH, SILENCE, STOP = 10.0, 25.0, 5.0
STUCK = None  # follows from vllm_hang_timeout
LONGEST = 600  # seconds to wait for an answer at all
_KEEPER = f"$(systemctl show --value --property=MainPID {UNIT})"
ENGINE = f"$(pgrep -P {_KEEPER})"
# All of the unit's processes, wherever they hang.
_ALL = f"$(cat /sys/fs/cgroup/system.slice/system-vllm.slice/{UNIT}/cgroup.procs)"


@dataclass(frozen=True)
class Fault:
    """What is done, and what of it counts: the seconds from its end until there is an answer."""

    name: str
    do: Callable[[], None]
    goal: float | None
    boots: tuple[str, ...] = ()  # hosts that it reboots

    def within(self, hang: float) -> float:
        """The seconds that it may take beyond a start."""
        return 1.5 * hang + 5 if self.goal is None else self.goal


def _on(name: str, command: str) -> Callable[[], None]:
    return lambda: print(shell(name, command, check=False), end="")


def _both(first: Callable[[], None], second: Callable[[], None], pause: float = 0) -> Callable[[], None]:
    def do() -> None:
        first()
        time.sleep(pause)
        second()

    return do


def _reboot(fault: str, *names: str) -> Fault:
    def do() -> None:
        for name in names:
            shell(name, "systemctl reboot --no-block", check=False)

    return Fault(fault, do, DEATH, names)


def _booted(name: str) -> float:
    """When a host could start units: of the clock that it shares with this program."""
    command = "systemctl show --value --property=ActiveEnterTimestampMonotonic basic.target"
    for _ in range(10):
        if told := shell(name, command):
            return int(told) / 1e6
        time.sleep(1)  # on a busy machine Docker may lose what a short command prints
    raise AssertionError(f"{name} does not tell when it booted")


def _cut(seconds: float) -> Callable[[], None]:
    """Nothing goes out of the worker's host or into it for so long."""
    return _on(WORKER, f"ip link set eth0 down; sleep {seconds}; ip link set eth0 up")


def killed(name: str, which: str) -> Callable[[], None]:
    return _on(name, f"kill -KILL {which}")


def stopped(name: str, which: str) -> Callable[[], None]:
    return _on(name, f"kill -STOP {which}")


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("the worker's engine is killed", killed(WORKER, ENGINE), DEATH),
        Fault("the API server is killed", killed(HEAD, ENGINE), DEATH),
        Fault("the head's keeper is killed", killed(HEAD, _KEEPER), DEATH),
        Fault("the worker's keeper is killed", killed(WORKER, _KEEPER), DEATH),
        Fault("all of the head is killed", killed(HEAD, _ALL), DEATH),
        Fault("all of the worker is killed", killed(WORKER, _ALL), DEATH),
        Fault("the worker's engine is stopped", stopped(WORKER, ENGINE), STUCK),
        Fault("the head's engine is stopped", stopped(HEAD, ENGINE), STUCK),
        Fault("all of the worker is stopped", stopped(WORKER, _ALL), SILENCE),
        Fault("the head's keeper is stopped", stopped(HEAD, _KEEPER), SILENCE),
        Fault("the network is cut for 30 s", _cut(30), SILENCE),
        _reboot("the worker's host is rebooted", WORKER),
        _reboot("the head's host is rebooted", HEAD),
        _reboot("both hosts are rebooted", HEAD, WORKER),
        Fault(
            "the API server is killed, and all of the worker while the next epoch starts",
            _both(killed(HEAD, ENGINE), killed(WORKER, _ALL), pause=5),
            DEATH,
        ),
    )
}


@dataclass(frozen=True)
class Healed:
    """How one went."""

    fault: str
    gone: float  # seconds from the fault until there was an answer
    boot: float  # of these, what a rebooted host took until it could start units
    start: float  # and what the engine took to start
    goal: float
    reason: str

    @property
    def beyond(self) -> float:
        """The seconds that the goal is about."""
        return self.gone - self.boot - self.start

    @property
    def in_time(self) -> bool:
        """Whether it healed within the goal."""
        return self.beyond <= self.goal

    @property
    def row(self) -> str:
        """For a table."""
        return (
            f"| {self.fault} | {self.gone:.1f} | {self.boot:.1f} | {self.start:.1f} | {self.beyond:.1f} "
            f"| {self.goal:.0f} | {self.reason} |"
        )


HEADER = (
    "| fault | answers after | the host's boot | the engine's start | beyond | goal | reason |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def heal(fault: Fault, hang: float) -> Healed:
    """Do it and wait until the instance, which counts as hung after so many seconds, answers again."""
    before = site.keeper(HEAD)
    fault.do()
    done = time.monotonic()
    after = site.wait_for_answer(before.epoch, LONGEST)
    gone = time.monotonic() - done
    boot = max((_booted(name) - done for name in fault.boots), default=0.0)
    assert boot >= 0, f"{fault.boots} did not boot anew"
    healed = Healed(fault.name, gone, boot, after.start_seconds, fault.within(hang), after.reason)
    print(healed.row, flush=True)
    return healed


class _Stop(threading.Thread):
    """Stops the unit on a host, and notes when that was done."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.host, self.ended = name, 0.0

    def run(self) -> None:
        shell(self.host, f"systemctl stop {UNIT}")
        self.ended = time.monotonic()


def stop_under_a_stream(name: str, tokens: int) -> Healed:
    """Stop the unit of one node while a stream of so many tokens is open, which must end well; then start it again."""
    before = site.keeper(HEAD)
    with site.stream(tokens) as stream:
        stream.readline()
        stopping = _Stop(name)
        stopping.start()
        text = stream.read().rstrip()
    answered = time.monotonic()
    stopping.join()
    assert text.endswith(b"[DONE]"), text[-500:]
    assert b'"finish_reason":"length"' in text, text[-500:]
    stopped = Healed(f"{name} is stopped under a stream", stopping.ended - answered, 0, 0, STOP, "")
    shell(name, f"systemctl start {UNIT}")
    site.wait_for_answer(before.epoch, LONGEST)
    return stopped
