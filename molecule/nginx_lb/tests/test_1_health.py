"""Servers that die, hang, vanish or fail while clients ask all the time, whose requests do not fail."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from front_door import until

if TYPE_CHECKING:
    from front_door import FrontDoor

STATE = "/var/lib/gpuhosts-front-door/state.json"
SERVER = "127.0.0.1:9003"
# A shell on the host, because each look from outside would take longer than what is measured.
LISTENS = "timeout 20 sh -c 'until curl -sf http://127.0.0.1:9003/health; do sleep 0.05; done'"
NFT = "command -v nft > /dev/null"
NETWORK = "iptables --insert INPUT --protocol tcp --dport 9003 --jump DROP"
RULES = "table inet hole { chain input { type filter hook input priority -10; tcp dport 9003 drop; }; }"
FAULT = 'curl --silent --fail --max-time 5 --data \'{"fault": "%s"}\' http://127.0.0.1:9003/stand_in/fault'
# What is done to the server, and undone.
FAULTS = {
    "killed": (
        "systemctl kill --signal=SIGKILL upstream@9003; systemctl stop upstream@9003",
        # It has recovered when it listens.
        f"systemctl start upstream@9003; {LISTENS}",
    ),
    "stopped": ("systemctl kill --signal=SIGSTOP upstream@9003", "systemctl kill --signal=SIGCONT upstream@9003"),
    "blackholed": (
        f"{NFT} && nft '{RULES}' || {NETWORK}",
        f"{NFT} && nft delete table inet hole || {NETWORK.replace('insert', 'delete')}",
    ),
    "sick": (FAULT % "unhealthy", FAULT % ""),
}  # fmt: skip


class Clients:
    """Six of them, who ask for completions of the model `big` until they are told to stop."""

    def __init__(self, front_door: FrontDoor) -> None:
        self.front_door = front_door
        self.ended = threading.Event()
        self.answers: list[tuple[float, float, int, Any]] = []  # begun, ended, status, port of the server
        self.pool = ThreadPoolExecutor(6)
        self.running = [self.pool.submit(self._ask) for _ in range(6)]

    def _ask(self) -> None:
        while not self.ended.is_set():
            began = time.time()
            answer = self.front_door.post(model="big", tokens=2, interval=0.05)
            port = answer.arrived["port"] if answer.status == 200 else answer.body
            self.answers.append((began, time.time(), answer.status, port))

    def finish(self) -> None:
        self.ended.set()
        for one in self.running:
            one.result()
        self.pool.shutdown()


def down(front_door: FrontDoor) -> dict[str, Any]:
    """What is down, and since when."""
    state = json.loads(front_door.host.file(STATE).content_string)["servers"]
    return {server: entry["down"] for server, entry in state.items() if "down" in entry}


def outage(front_door: FrontDoor, fault: str) -> tuple[float, float, float]:
    """Seconds until the server was out, until it was asked again after its recovery, and of the longest answer."""
    begin, end = FAULTS[fault]
    # It then remembers no fault before this one.
    front_door.host.check_output("systemctl restart gpuhosts-front-door-health")
    clients, ended = Clients(front_door), 0.0
    try:
        time.sleep(0.5)
        began = time.time()
        front_door.host.check_output(begin)
        until(lambda: SERVER in down(front_door), 10)
        out = down(front_door)[SERVER]["since"] - began
        time.sleep(7 if fault in ("stopped", "blackholed") else 0.5)  # requests that wait there go elsewhere
        front_door.host.check_output(end)
        ended = time.time()
        until(lambda: any(asked > ended and port == 9003 for asked, _, _, port in clients.answers), 10)
    finally:
        if not ended:
            front_door.host.check_output(end)
        clients.finish()
    assert {status for _, _, status, _ in clients.answers} == {200}, clients.answers
    back = min(asked for asked, _, _, port in clients.answers if asked > ended and port == 9003) - ended
    return out, back, max(done - asked for asked, done, _, _ in clients.answers)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_answer_goes_out_and_comes_back_without_a_failed_request(
    front_doors: list[FrontDoor], fault: str
) -> None:
    with ThreadPoolExecutor(len(front_doors)) as hosts:
        seen = list(hosts.map(lambda front_door: outage(front_door, fault), front_doors))
    print(fault, [f"out {out:.1f} s, back {back:.1f} s, longest {longest:.1f} s" for out, back, longest in seen])
    assert max(out for out, _, _ in seen) < 3
    assert max(back for _, back, _ in seen) < 2


def test_without_any_server_it_says_at_once_when_to_come_again_and_is_back_with_the_first(
    front_doors: list[FrontDoor],
) -> None:
    for front_door in front_doors:
        front_door.host.check_output("systemctl stop upstream@9003 upstream@9004")
    for front_door in front_doors:
        until(lambda door: len(down(door)) == 2, 10, front_door)
        asked = time.monotonic()
        answer = front_door.post(model="big")
        assert time.monotonic() - asked < 1
        assert (answer.status, answer.headers["retry-after"], answer.json["error"]["code"]) == (503, "1", "no_server")
        assert front_door.post(model="small").status == 200

        front_door.host.check_output("systemctl start upstream@9003")
        began = time.monotonic()
        until(lambda door: door.post(model="big").status == 200, 10, front_door)
        assert time.monotonic() - began < 2
        front_door.host.check_output("systemctl start upstream@9004")
        until(lambda door: not down(door), 10, front_door)


def test_a_full_queue_everywhere_is_told_as_the_server_tells_it(front_door: FrontDoor) -> None:
    for port in (9003, 9004):
        front_door.host.check_output((FAULT % "busy").replace("9003", str(port)))
    answer = front_door.post(model="big")
    for port in (9003, 9004):
        front_door.host.check_output((FAULT % "").replace("9003", str(port)))

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "queue is full" in answer.json["error"]["message"]


def test_a_server_that_fails_at_every_request_fails_nobody(front_door: FrontDoor) -> None:
    """As an engine does that is about to end."""
    front_door.host.check_output(FAULT % "error")
    try:
        answers = [front_door.post(model="big") for _ in range(12)]
    finally:
        front_door.host.check_output(FAULT % "")
    assert {answer.status for answer in answers} == {200}
    assert {answer.arrived["port"] for answer in answers} == {9004}


def test_the_health_goes_on_after_a_crash(host: Any) -> None:
    def main() -> str:
        return str(host.check_output("systemctl show --property=MainPID --value gpuhosts-front-door-health"))

    before = main()
    host.check_output("systemctl kill --signal=SIGKILL gpuhosts-front-door-health")
    until(lambda: main() not in (before, "0") and host.service("gpuhosts-front-door-health").is_running, 10)
