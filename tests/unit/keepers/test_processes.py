"""Real keepers on this machine, with short times, which are killed, stopped, or do not belong to an instance."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keeper
import pytest
from keeper_protocol import Node

ROOT = Path(__file__).resolve().parents[3]
KEEPER = ROOT / "roles/vllm/files/keeper.py"
ENGINE = Path(__file__).with_name("engine.py")
DEAD, HANG = 2.5, 2.0
WAIT = 15.0
VARIABLE = "GPUHOSTS_KEEPER_TOKEN"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def until(what: Callable[[], object], most: float = WAIT) -> None:
    deadline = time.monotonic() + most
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.03)


class Unit:
    """A keeper, and what systemd does for it: its directory, its words, and an end to whatever it leaves."""

    def __init__(self, place: Path, rank: int, **more: object) -> None:
        self.place, self.rank = place, rank
        place.mkdir()
        self.node = {
            "id": "tiny-1", "rank": rank, "agree": "a", "head": "127.0.0.1", "address": "127.0.0.1",
            "dead": DEAD, "hang": HANG, "start_timeout": 10, "drain": 5, **more,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.mark = f"KEPT_{place.name}_{os.getpid()}={id(self)}"

    def start(self, known: str = "to both", **more: object) -> Unit:
        (self.place / "node.json").write_text(json.dumps(self.node | more))
        (self.place / "started").unlink(missing_ok=True)
        name, _, value = self.mark.partition("=")
        environment = {**os.environ, name: value, VARIABLE: known, "RUNTIME_DIRECTORY": str(self.place)}
        with (self.place / "journal").open("a") as journal:
            words = [sys.executable, "-Es", str(KEEPER), str(self.place / "node.json")]
            self.process = subprocess.Popen(words, env=environment, stdout=journal, stderr=journal)
        return self

    def left(self) -> list[int]:
        """The processes that are of this unit, as its cgroup would tell; zombies are gone."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return found

    def wait(self) -> int:
        """Until the keeper has ended; then whatever is left is killed, which it must not rely upon to be quick."""
        assert self.process
        code = self.process.wait(WAIT)
        for process in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return code

    def send(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    @property
    def engine(self) -> int:
        return int((self.place / "started").read_text().split()[0])

    @property
    def has_started(self) -> bool:
        place = self.place / "started"
        return place.exists() and len(place.read_text().split()) == 2

    @property
    def said(self) -> str:
        return (self.place / "journal").read_text()

    def is_in(self, state: str) -> bool:
        with contextlib.suppress(OSError):
            return f'state="{state}"}} 1' in (self.place / "keeper.prom").read_text()
        return False


class Site:
    """The units of an instance."""

    def __init__(self, place: Path, nodes: int) -> None:
        self.api, port = free_port(), free_port()
        both = {"nodes": nodes, "port": port if nodes > 1 else 0}
        self.units = []
        for rank in range(nodes):
            api = self.api if rank == 0 else 0
            asked = {"url": f"http://127.0.0.1:{api}", "canary": {"path": "/v1/completions", "body": {}}} if api else {}
            home = place / f"rank{rank}"
            command = [sys.executable, str(ENGINE), str(api), str(home)]
            self.units.append(Unit(home, rank, command=command, **both, **asked))
        self.head = self.units[0]

    def serves(self) -> bool:
        """Whether all nodes do; a worker's engine may only just have been started then."""
        return all(unit.is_in("serving") and unit.has_started for unit in self.units)

    def start(self) -> Site:
        for unit in self.units:
            unit.start()
        until(self.serves)
        return self


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[[int], Site]]:
    made: list[Site] = []

    def make(nodes: int) -> Site:
        made.append(Site(tmp_path, nodes))
        return made[-1]

    yield make
    for unit in [unit for one in made for unit in one.units]:
        for process in unit.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if unit.process:
            unit.process.wait()


def test_an_engine_on_one_host_serves_hangs_and_starts_anew(site: Callable[[int], Site]) -> None:
    one = site(1).start()
    unit = one.head
    environment = Path(f"/proc/{unit.engine}/environ").read_bytes()
    assert VARIABLE.encode() not in environment

    (unit.place / "hang").touch()
    assert unit.wait() == 1
    assert f"ends: the engine at http://127.0.0.1:{one.api} gave no token for 2 s" in unit.said
    (unit.place / "hang").unlink()
    unit.start()
    until(one.serves)

    os.kill(unit.engine, signal.SIGSTOP)
    began = time.monotonic()
    assert unit.wait() == 1
    assert time.monotonic() - began < 1.5 * HANG + 2


def test_the_metrics_of_a_busy_engine_may_take_as_long_as_it_may_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(0.5)
            with contextlib.suppress(OSError):  # nobody waits any more
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"vllm:num_requests_running 900.0\n")

    monkeypatch.setattr(keeper, "ASKED", 0.1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = Node("x", [], url=f"http://127.0.0.1:{server.server_port}", hang=5)
        answers = [keeper.ask(question, node) for question in ("metrics", "health")]
        server.shutdown()
    assert answers == [([], 900, False), None]


@pytest.mark.parametrize(("awake", "asleep"), [("1.0", False), ("0.0", True)])
def test_an_engine_tells_that_it_sleeps(awake: str, asleep: bool) -> None:
    """As vLLM 0.33 says it (v1/metrics/loggers.py)."""
    labels = 'engine="0",model_name="tiny {a}",sleep_state='
    states = {"awake": awake, "weights_offloaded": "0.0", "discard_all": "0.0"}
    lines = "".join(f'vllm:engine_sleep_state{{{labels}"{name}"}} {value}\n' for name, value in states.items())

    class Sleepy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(lines.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Sleepy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer = keeper.ask("metrics", Node("x", [], url=f"http://127.0.0.1:{server.server_port}", hang=5))
        server.shutdown()
    assert answer == ([], None, asleep)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("victim", ["engine", "keeper", "node stopped"])
def test_two_nodes_die_together_and_come_back(site: Callable[[int], Site], rank: int, victim: str) -> None:
    both = site(2).start()
    struck, other = both.units[rank], both.units[1 - rank]
    before = (struck.place / "keeper.prom").read_text()

    began = time.monotonic()
    if victim == "engine":
        os.kill(struck.engine, signal.SIGKILL)
    elif victim == "keeper":
        struck.send(signal.SIGKILL)
        struck.wait()
    else:
        for process in struck.left():
            os.kill(process, signal.SIGSTOP)
    assert other.wait() == 1
    took = time.monotonic() - began
    assert took < (1.5 if victim != "node stopped" else DEAD + 2)
    if victim == "node stopped":  # which systemd's watchdog does
        struck.send(signal.SIGKILL)
    struck.wait()
    until(lambda: not struck.left() + other.left())

    for unit in both.units:
        unit.start()
    until(both.serves)
    assert (struck.place / "keeper.prom").read_text() != before
    reasons = {
        "engine": "the engine was killed by SIGKILL",
        "keeper": "the keeper was killed",
        "node stopped": "was killed",
    }
    assert reasons[victim] in (struck.place / "keeper.prom").read_text()


def test_who_does_not_belong_is_refused_until_it_does(site: Callable[[int], Site]) -> None:
    both = site(2)
    both.head.start()
    worker = both.units[1]
    worker.start(known="to nobody")
    until(lambda: "which refuses this node: its token is another one" in worker.said)
    assert both.head.is_in("waiting")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    worker.start(agree="b")
    until(lambda: "rank 1 has another release or other options; run site.yml on all nodes" in worker.said)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert not (worker.place / "started").exists(), "no engine without an epoch"
    worker.start()
    until(both.serves)
    assert both.head.said.count("refuses a node") == 2, "what happens every second is said once"


def test_noise_on_the_port_harms_nobody(site: Callable[[int], Site]) -> None:
    both = site(2).start()
    port = int(str(both.head.node["port"]))
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000, b'{"end": "x"}\n', b"[" * 4000 + b"\n", b'{"proof": 1}'):
        with socket.create_connection(("127.0.0.1", port), 5) as wire:
            wire.sendall(noise)
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_WR)
                while wire.recv(1024):
                    pass
    assert both.serves()


def test_a_second_keeper_of_a_rank_ends_the_epoch(site: Callable[[int], Site], tmp_path: Path) -> None:
    both = site(2).start()
    twin = Unit(tmp_path / "twin", 1, **{key: both.units[1].node[key] for key in ("nodes", "port", "command")})
    twin.start()
    assert both.head.wait() == both.units[1].wait() == 1
    assert "rank 1 has started anew" in both.units[1].said
    twin.send(signal.SIGTERM)
    assert twin.wait() == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_of_any_node_lets_a_stream_finish(site: Callable[[int], Site], rank: int) -> None:
    both = site(2).start()
    got: list[bytes] = []

    def stream() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", both.api, timeout=WAIT)
        connection.request("POST", "/stream")
        got.append(connection.getresponse().read())

    client = threading.Thread(target=stream)
    client.start()
    time.sleep(0.4)
    both.units[rank].send(signal.SIGTERM)
    began = time.monotonic()
    codes = [unit.wait() for unit in both.units]
    client.join()

    assert got == [b"token " * 10]
    assert codes == [0, 0]
    assert time.monotonic() - began < 5


def test_an_engine_that_cannot_be_started_is_told_and_left_more_time(site: Callable[[int], Site]) -> None:
    unit = site(1).head
    for _ in range(2):
        unit.start(command=["/nowhere/vllm"])
        assert unit.wait() == 1
    assert "ends: the engine cannot be started: [Errno 2] No such file or directory: '/nowhere/vllm'" in unit.said
    assert "waits for the end of a pause of 2 s, after 1 starts in a row" in unit.said


def test_arguments_that_come_later_and_what_is_cleaned_up(site: Callable[[int], Site]) -> None:
    unit = site(1).head
    arguments = unit.place / "arguments.json"
    arguments.write_text('["and", "more"]')
    echo = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    unit.start(command=[*echo, "some"], arguments_file=str(arguments), cleanup=["echo", "swept"])
    assert unit.wait() == 1
    assert "swept" in unit.said
    assert "['some', 'and', 'more']" in unit.said
    unit.start(cleanup=["false"])
    assert unit.wait() == 1
    assert "keeper: cannot run" in unit.said
