"""Keepers on simulated hosts: a clock, a network and a systemd, which do what real ones do in the order of a seed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keeper_protocol import HEAD, Keeper, Memory, Node

HANG = 12.0

WATCHDOG = 6.0
RESTART = 2.0
STOP = 12.0  # TimeoutStopSec
OK = 200


@dataclass(eq=False)
class Engine:
    """The process of one node."""

    epoch: int
    alive: bool = True
    stuck: bool = False


@dataclass(eq=False)
class End:
    """One end of a connection."""

    host: Host
    life: int
    link: int = 0
    open: bool = True
    queue: deque[Any] = field(default_factory=deque)  # what is under way to it; None: the other side has closed


@dataclass(eq=False)
class Host:
    """A host with one unit."""

    rank: int
    keeper: Keeper | None = None
    life: int = 0  # of keepers, so that nothing meant for one reaches the next
    memory: Memory = field(default_factory=Memory)
    engine: Engine | None = None
    starts: int = 0  # of engines, in this life
    links: dict[int, tuple[End, End]] = field(default_factory=dict)  # own end, and the other
    stopped: bool = False  # SIGSTOP
    missed: list[Callable[[], None]] = field(default_factory=list)
    wanted: bool = True  # by systemctl
    stopping: bool = False


class World:
    """All of it.

    :param kills: whether systemd kills what is left of an engine before it starts its keeper again.
    :param kind: what decides; tests have some that forget a rule.
    """

    def __init__(self, seed: int, nodes: int, *, kills: bool = True, kind: type[Keeper] = Keeper) -> None:
        self.random = random.Random(seed)
        self.kills, self.kind = kills, kind
        self.ages: dict[int, float] = {}  # when an engine was asked first, by its identity
        self.now = 0.0
        self.log: list[str] = []
        self.announced: set[int] = set()
        self.hosts = [Host(rank) for rank in range(nodes)]
        self.cuts: dict[frozenset[int], float] = {}  # until when
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = itertools.count(1)
        self.load = self.random.uniform(1, 8)  # seconds that the engines take to start
        for host in self.hosts:
            self.after(self.random.uniform(0, 3), lambda host=host: self.begin(host))  # type: ignore[misc]

    # Time

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.count), event))

    def run(self, until: Callable[[], bool], most: float) -> bool:
        """Let time pass until something is true; whether it came to that."""
        end = self.now + most
        while self.events and self.events[0][0] <= end:
            self.now, _, event = heapq.heappop(self.events)
            event()
            if until():
                return True
        self.now = end
        return until()

    def say(self, text: str) -> None:
        self.log.append(f"{self.now:8.3f} {text}")

    # systemd

    def begin(self, host: Host) -> None:
        if not host.wanted or host.keeper:
            return
        host.life += 1
        host.starts, host.stopped, host.stopping, host.links, host.missed = 0, False, False, {}, []
        node = Node(
            id="x",
            command=[],
            agree="a",
            rank=host.rank,
            nodes=len(self.hosts),
            url="u" if host.rank == HEAD else None,
            canary={"path": "/", "body": {}} if host.rank == HEAD else None,
            dead=5,
            hang=HANG,
            start_timeout=40,
            drain=6,
        )
        host.keeper = self.kind(node, "token", Memory(**vars(host.memory)), self.now, lambda: self.now)
        self.say(f"rank {host.rank}: keeper {host.life}")
        self.tick(host, host.life)

    def gone(self, host: Host, *, said: bool = True) -> None:
        """The keeper has ended: systemd kills what is left, and then starts it again."""
        if host.keeper is None:
            return
        host.keeper = None
        for own, other in list(host.links.values()):
            own.open = False
            if said:
                self.put(own, other, None)
        host.links = {}
        slow = self.random.choice([0.0, 0.1, 3.0])
        life, engine = host.life, host.engine
        if engine and self.kills:
            self.after(slow, lambda: self.kill(host, engine))
        elif engine:
            self.after(self.random.uniform(5, 30), lambda: self.kill(host, engine))  # it ends of itself some day
            slow = 0.0
        if host.wanted:
            self.after(max(RESTART, slow + 0.01), lambda: self.again(host, life))

    def again(self, host: Host, life: int) -> None:
        if host.life == life:
            self.begin(host)

    def kill(self, host: Host, engine: Engine) -> None:
        engine.alive = False
        if host.engine is engine:
            host.engine = None

    # What happens to a keeper

    def to(self, host: Host, life: int, event: Callable[[Keeper], None]) -> None:
        """Hand an event to a keeper, at once or when it wakes."""
        if host.life != life or host.keeper is None:
            return
        if host.stopped:
            host.missed.append(lambda: self.to(host, life, event))
            return
        event(host.keeper)
        self.act(host)

    def tick(self, host: Host, life: int) -> None:
        if host.life == life and host.keeper:
            if not host.stopped:
                host.keeper.tick(self.now)
                self.act(host)
            self.after(self.random.uniform(0.5, 1.1), lambda: self.tick(host, life))

    def act(self, host: Host) -> None:
        while host.keeper:
            actions = host.keeper.take()
            if not actions:
                return
            for name, *about in actions:
                if host.keeper:
                    getattr(self, f"do_{name}")(host, *about)

    def do_say(self, host: Host, text: str) -> None:
        self.say(f"rank {host.rank}: {text}")

    def do_status(self, host: Host) -> None:
        pass

    def do_remember(self, host: Host) -> None:
        assert host.keeper
        host.memory = Memory(**vars(host.keeper.memory))

    def do_exit(self, host: Host, code: int) -> None:
        engine = host.engine
        if engine and self.kills:
            self.kill(host, engine)
        self.say(f"rank {host.rank}: exit {code}")
        if host.stopping:
            host.wanted = False
        self.gone(host)

    def do_start(self, host: Host) -> None:
        assert host.keeper
        epoch = host.keeper.epoch
        if host.rank == HEAD:
            self.announced.add(epoch)
        running = {engine.epoch for engine in self.engines() if engine.alive}
        host.starts += 1
        host.engine = Engine(epoch)
        self.say(f"rank {host.rank}: engine of {epoch}")
        assert epoch in self.announced, "an engine of an epoch that nobody has announced"
        assert running <= {epoch}, f"an engine of {epoch} beside those of {running}"
        assert host.starts == 1, "a keeper that starts another engine"

    def engines(self) -> list[Engine]:
        return [host.engine for host in self.hosts if host.engine]

    def do_terminate(self, host: Host) -> None:
        engine, life = host.engine, host.life

        def ends() -> None:
            if engine and engine.alive and not engine.stuck:
                self.kill(host, engine)
                self.to(host, life, lambda keeper: keeper.exited("ended with status 0"))

        self.after(self.random.uniform(0, 9), ends)

    def do_ask(self, host: Host, question: str) -> None:
        life, engine = host.life, host.engine
        delay = self.random.uniform(0, 0.5)
        asked, parts = self.now, [other.engine for other in self.hosts]

        def answer() -> Any:
            whole = engine is not None and all(
                part is not None and part.alive and not part.stuck and part.epoch == engine.epoch for part in parts
            )
            if question == "port":
                return engine is not None and engine.alive
            if not engine or not engine.alive or engine.stuck:
                return None
            if question == "health":  # it says so for ever after, whatever becomes of the workers
                since = self.ages.setdefault(id(engine), asked)
                return OK if whole and self.now - since > self.load else None
            if question == "metrics":
                return ("", 0, False)
            return OK if whole else None

        if question == "canary" and answer() is None:
            delay = HANG
        self.after(delay, lambda: self.to(host, life, lambda keeper: keeper.answered(question, answer(), self.now)))

    # Network

    def cut(self, one: Host, other: Host) -> float:
        """Seconds that the network between two hosts is away from now on."""
        until = self.cuts.get(frozenset((one.rank, other.rank)), 0.0)
        return max(0.0, until - self.now)

    def do_connect(self, host: Host) -> None:
        head, life = self.hosts[HEAD], host.life

        def arrives() -> None:
            if self.cut(host, head) or head.keeper is None:
                self.to(host, life, lambda keeper: keeper.lost(-1, self.now))
                return
            own, other = End(host, life, next(self.count)), End(head, head.life, next(self.count))
            if host.life == life and host.keeper:
                host.links[own.link] = own, other
            else:
                own.open = False
            head.links[other.link] = other, own
            self.to(head, head.life, lambda keeper: keeper.opened(other.link, self.now))
            self.to(host, life, lambda keeper: keeper.opened(own.link, self.now))

        self.after(self.random.uniform(0, 0.3), arrives)

    def do_send(self, host: Host, link: int, message: dict[str, Any]) -> None:
        if link in host.links:
            self.put(*host.links[link], message)

    def do_close(self, host: Host, link: int) -> None:
        if link in host.links:
            own, other = host.links.pop(link)
            own.open = False
            self.put(own, other, None)

    def put(self, own: End, other: End, message: Any) -> None:
        other.queue.append(message)
        self.after(self.random.choice([0.01, 0.1, 1.0]) * self.random.random(), lambda: self.deliver(own, other))

    def deliver(self, own: End, other: End) -> None:
        """The next message of a connection arrives: in order on each, in any order among them."""
        wait = self.cut(own.host, other.host)
        if wait:
            self.after(wait + self.random.uniform(0, 0.5), lambda: self.deliver(own, other))
            return
        if not other.queue:
            return
        message = other.queue.popleft()
        host = other.host
        if not other.open or host.life != other.life or host.keeper is None:
            if own.open and message is not None:  # nobody is there any more, which the sender is told
                other.open = False
                own.queue.append(None)
                self.after(0.01, lambda: self.deliver(other, own))
        elif message is None:
            other.open = False
            host.links.pop(other.link, None)
            self.to(host, other.life, lambda keeper: keeper.lost(other.link, self.now))
        else:
            self.to(host, other.life, lambda keeper: keeper.heard(other.link, message, self.now))

    # Faults

    def fault(self) -> str:
        """Let something go wrong."""
        name = self.random.choice(FAULTS)
        host = self.random.choice(self.hosts)
        self.say(f"FAULT {name} on rank {host.rank}")
        getattr(self, f"fault_{name}")(host)
        return name

    def fault_engine_killed(self, host: Host) -> None:
        engine, life = host.engine, host.life
        if engine and engine.alive:
            self.kill(host, engine)
            self.to(host, life, lambda keeper: keeper.exited("was killed by SIGKILL"))

    def fault_engine_stopped(self, host: Host) -> None:
        if host.engine:
            host.engine.stuck = True

    def fault_keeper_killed(self, host: Host) -> None:
        if not host.stopping:
            self.gone(host)

    def fault_keeper_stopped(self, host: Host) -> None:
        if host.keeper is None:
            return
        host.stopped, life = True, host.life
        awake = self.random.uniform(0.5, 10)

        def wakes() -> None:
            if host.life == life and host.stopped:
                host.stopped = False
                missed, host.missed = host.missed, []
                for event in missed:
                    event()

        def bites() -> None:
            if host.life == life and host.stopped:
                self.gone(host)

        self.after(awake, wakes)
        self.after(WATCHDOG, bites)

    def fault_node_stopped(self, host: Host) -> None:
        self.fault_engine_stopped(host)
        self.fault_keeper_stopped(host)

    def fault_network_cut(self, host: Host) -> None:
        for other in self.hosts:
            if other is not host and self.random.random() < 0.8:
                pair = frozenset((host.rank, other.rank))
                self.cuts[pair] = max(self.cuts.get(pair, 0), self.now + self.random.choice([0.5, 4, 15]))

    def fault_reboot(self, host: Host) -> None:
        """Nobody is told that its connections are gone."""
        if host.engine:
            self.kill(host, host.engine)
        self.gone(host, said=False)
        host.memory = Memory()

    def fault_stopped_by_systemctl(self, host: Host) -> None:
        if host.keeper is None or host.stopping:
            return
        life = host.life
        host.stopping = True
        self.to(host, life, lambda keeper: keeper.stop(self.now))

        def killed() -> None:
            if host.life == life and host.keeper:
                host.wanted = False
                self.gone(host)

        def started() -> None:
            if host.life == life and host.keeper is None:
                host.wanted = True
                self.begin(host)

        self.after(STOP, killed)
        self.after(STOP + 4, started)

    def healthy(self) -> bool:
        """Whether all nodes serve, in one epoch."""
        keepers = [host.keeper for host in self.hosts]
        alive = [host.engine for host in self.hosts if host.engine and host.engine.alive and not host.engine.stuck]
        return (
            len(alive) == len(self.hosts)
            and len({engine.epoch for engine in alive}) == 1
            and all(keeper is not None and keeper.state == "serving" for keeper in keepers)
        )


FAULTS = sorted(name[len("fault_") :] for name in vars(World) if name.startswith("fault_"))
