"""Faults of the balancer that holds the address, while a client asks every 50 ms, each time by a new connection."""

from __future__ import annotations

import http.client
import itertools
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = "172.29.250.116"
LIMIT = 3.0  # seconds until it answers again
NGINX = "systemctl mask --runtime --quiet nginx && systemctl kill --signal=SIGKILL nginx"


class Client:
    """Asks until it is told to stop, and notes when it was answered."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.answered: list[float] = []
        self.asking: list[threading.Thread] = []
        self.clock = threading.Thread(target=self._run)
        self.clock.start()

    def _run(self) -> None:
        while not self.ended.wait(0.05):
            self.asking.append(threading.Thread(target=self._ask))
            self.asking[-1].start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(ADDRESS, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                self.answered.append(time.monotonic())
        except (OSError, http.client.HTTPException):
            pass  # it counts by its absence
        finally:
            connection.close()

    def finish(self) -> float:
        """The longest time without an answer, until now."""
        self.ended.set()
        for thread in (self.clock, *self.asking):
            thread.join()
        times = [*sorted(self.answered), time.monotonic()]
        return max(later - sooner for sooner, later in itertools.pairwise(times))


def has_address(host: Any) -> bool:
    return f" {ADDRESS}/32 " in host.check_output("ip -4 address")


def until(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_ready(host: Any) -> bool:
    """Whether a host would take the address over."""
    return bool(host.run("systemctl is-active keepalived nginx && curl --fail http://127.0.0.1/health").rc == 0)


@pytest.fixture
def holder(hosts: list[Any]) -> Any:
    until(lambda: all(map(is_ready, hosts)) and sum(map(has_address, hosts)) == 1, 20)
    time.sleep(1.5)  # each has asked its NGINX, and heard the other one
    return next(host for host in hosts if has_address(host))


def docker(verb: str, host: Any, *options: str) -> str:
    command = ["docker", verb, *options, host.backend.name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def reboot(host: Any) -> None:
    """Reboot, until the host begins to boot: before that it may still look as if nothing had happened."""
    before = docker("inspect", host, "--format={{.State.StartedAt}}")
    host.run("systemctl reboot")
    until(lambda: docker("inspect", host, "--format={{.State.StartedAt}}") != before, 30)


FAULTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    # Without a word to anybody, as by a loss of power.
    "killed": (lambda host: docker("kill", host), lambda host: docker("start", host)),
    "nginx killed": (
        lambda host: host.check_output(NGINX),
        lambda host: host.check_output("systemctl unmask --runtime --quiet nginx && systemctl start nginx"),
    ),
    "keepalived killed": (
        lambda host: host.check_output("systemctl kill --signal=SIGKILL keepalived"),
        lambda _: None,
    ),
    "rebooted": (reboot, lambda _: None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_address_answers_again_from_the_other_host_and_stays_there(
    hosts: list[Any], holder: Any, fault: str
) -> None:
    (other,) = (host for host in hosts if host is not holder)
    begin, end = FAULTS[fault]
    client = Client()
    try:
        time.sleep(0.5)
        begin(holder)
        until(lambda: has_address(other) or fault == "keepalived killed", 10)
        end(holder)
        until(lambda: is_ready(holder), 30)
        time.sleep(2.5)  # in which it could take the address back
    finally:
        longest = client.finish()
    print(f"{fault}: {longest:.2f} s without an answer")
    assert longest < LIMIT
    assert sum(map(has_address, hosts)) == 1
    assert has_address(other) or fault == "keepalived killed"
