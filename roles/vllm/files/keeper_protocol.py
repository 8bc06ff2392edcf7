"""What the keepers of a vLLM instance decide, and what they tell each other. It does nothing itself.

The nodes of an instance live and die together. The keeper of rank 0, the head, chooses: when all ranks have greeted it,
it announces an epoch, and only then every keeper starts its engine, at most one in its life. Whatever ends an engine
anywhere ends the epoch everywhere: each keeper kills its engine and exits, systemd kills what is left in its unit and
starts it again, and the next epoch begins when all are back. An engine on one host is the same with nobody to wait for.

Messages are JSON objects, one a line, known by a key: ``challenge``, ``proof``, ``welcome``, ``refused`` before both
sides know each other; then ``beat``, ``start``, ``serving``, ``leaving``, ``end``.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import secrets
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Callable

HEAD = 0
BEAT = 1.0  # seconds between two beats; any other message counts as one
GREETING = 5.0  # seconds that a stranger has for its hello
STRANGERS = 16  # at the same time; the oldest gives way
LINE = 4096  # bytes of a message at most
DRAINED = 3.0  # seconds for an engine without requests: what is left are its own end, and clients that do not hang up
LONGEST_PAUSE = 60.0  # seconds before an epoch, after others that never answered
METRIC = "gpuhosts_keeper"
STATES = ("waiting", "starting", "testing", "serving", "draining", "ended")

Action = tuple[Any, ...]  # its name, then what it is about


@dataclass(frozen=True)
class Node:
    """What the file of a node says; seconds are seconds."""

    id: str
    command: list[str]
    agree: str = ""  # must be the same on all nodes
    rank: int = HEAD
    nodes: int = 1
    head: str = ""  # address of the head
    address: str = ""  # own, the only one to listen on
    port: int = 0  # of the head's keeper
    url: str | None = None  # of the engine's API, on the node that has it
    canary: dict[str, Any] | None = None  # path and body of a request for one token
    arguments_file: str | None = None  # a JSON list that goes to the end of the command
    cleanup: list[str] = field(default_factory=list)  # removes what an earlier engine has left
    dead: float = 20  # of silence, and a node counts as lost
    hang: float = 90  # without a token, and an engine counts as hung
    start_timeout: float = 1800  # until /health is 200
    drain: float = 70  # until a stopping engine is killed
    idle_first: bool = False  # an engine that would drop its requests is told to stop when it has none

    @classmethod
    def read(cls, path: Path) -> Node:
        """The node of a file; keys that this release does not know are passed over."""
        given = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{part.name: given[part.name] for part in fields(cls) if part.name in given})


@dataclass
class Memory:
    """What a keeper tells the next one on this node."""

    failed: int = 0  # epochs in a row that never answered
    reason: str = ""  # of the last end
    ended: float = 0  # when that was, in seconds since 1970; 0: the keeper did not live to say

    @classmethod
    def read(cls, path: Path) -> Memory:
        """What a file remembers; nothing, where it is not there or broken."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            return cls()


@dataclass
class Link:
    """One connection to another keeper."""

    opened: float
    heard: float
    nonce: str
    challenge: str = ""  # of the head, on a worker
    rank: int | None = None  # of the other side, once it has proved itself


def pause(failed: int) -> float:
    """Seconds to wait before the next epoch, after so many in a row that never answered: a weekend's are thousands."""
    return min(2.0 ** min(failed, 9), LONGEST_PAUSE) if failed else 0.0


class Keeper:
    """What a node does about what happens to it; time is handed in, and what to do is taken out with :meth:`take`.

    Actions are tuples: ``connect``; ``send`` LINK MESSAGE; ``close`` LINK; ``start``; ``terminate``; ``ask`` QUESTION;
    ``remember``; ``say`` TEXT; ``status``; ``exit`` CODE, which kills the engine first.
    """

    def __init__(
        self, node: Node, token: str, memory: Memory, now: float, wall: Callable[[], float] = time.time
    ) -> None:
        self.node, self.memory = node, memory
        self.last = replace(memory, ended=memory.ended or wall())  # end
        self.state, self.waits_for = "waiting", ""
        self.epoch = 0  # milliseconds since 1970: it only has to be another one
        self.start_seconds = 0.0  # of the engine, until it answered
        self.links: dict[int, Link] = {}
        self._token, self._wall = token.encode(), wall
        self._is_head = node.rank == HEAD
        self._actions: list[Action] = []
        self._not_before = now + pause(memory.failed)
        self._dial_at = self._beaten = self._started = self._alive = self._drain_until = now
        self._asked: dict[str, tuple[float, bool]] = {}  # when, and whether the answer is still to come
        self._moved: object = None  # what only an engine that works moves
        self._idle = 0  # how often in a row it had no request
        self._canary = node.canary
        self._hindered = ""  # by what
        self._because = ""  # of a drain
        self._said: set[str] = set()

    def take(self) -> list[Action]:
        """What there is to do by now, in this order."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def status(self) -> str:
        """The state in words."""
        return f"{self.state} for {self.waits_for}" if self.waits_for else f"{self.state}, epoch {self.epoch}"

    # Events

    def opened(self, link: int, now: float) -> None:
        """There is a connection: somebody's on the head, the one to the head on a worker."""
        strangers = [name for name, other in self.links.items() if other.rank is None]
        if self.links and not self._is_head:  # one that came late must not cut a worker off from its epoch
            self._do("close", link)
            return
        if len(strangers) >= STRANGERS:
            self._close(strangers[0])
        self.links[link] = Link(now, now, secrets.token_hex(16))
        if self._is_head:
            self._send(link, challenge=self.links[link].nonce)

    def heard(self, link: int, message: dict[str, Any], now: float) -> None:
        """A message has come."""
        peer = self.links.get(link)
        if peer is None:
            return
        if peer.rank is None:
            (self._admit if self._is_head else self._greet)(link, peer, message, now)
            return
        peer.heard = now
        if "end" in message:
            self._gone(_plain(message["end"]), now, clean=bool(message.get("clean")))
        elif "leaving" in message and self._is_head:
            self._drain(f"rank {peer.rank} was told to stop", now)
        elif "start" in message and not self._is_head and self.state == "waiting":
            self._start(message["start"], now)
        elif "serving" in message and not self._is_head and self.state == "starting":
            self._serve(now)

    def lost(self, link: int, now: float) -> None:
        """A connection is closed, or did not come about."""
        self._dial_at = now + BEAT
        peer = self.links.pop(link, None)
        if peer and peer.rank is not None:
            self.waits_for = ""
            self._gone(self._mine(f"the connection to rank {peer.rank} broke"), now)

    def exited(self, how: str) -> None:
        """The engine's process has ended."""
        if self.state == "draining":
            self._end(self._because, clean=True)
        else:
            self._end(self._mine(f"the engine {how}"))

    def answered(self, question: str, answer: Any, now: float) -> None:
        """What came of ``ask``: see :func:`ask`."""
        self._asked[question] = (self._asked.get(question, (now, True))[0], False)
        if question == "health" and answer == http.client.OK and self.state == "starting":
            self._alive = now
            self._change("testing")
        elif question == "metrics" and answer is not None:
            moved, requests, asleep = answer
            if asleep or moved != self._moved or (self._canary is None and not requests):
                self._alive = now
            self._moved = moved
            self._idle = self._idle + 1 if requests == 0 else 0
            if self.state == "draining" and self._idle > 1:  # between two of its steps a request may be in no count
                if self.node.idle_first and self._idle == 2:
                    self._do("terminate")
                self._fade(now)
        elif question == "canary" and answer is not None:
            self._judge(answer, now)
        elif question == "port" and answer is False and self.state == "draining":
            self._fade(now)

    def stop(self, now: float) -> None:
        """The unit is told to stop. A worker asks the head to drain, and stays until it has."""
        if self._is_head or self.state == "waiting":
            self._drain(self._mine("stopped"), now)
        elif self.state in ("starting", "serving"):
            self._because, self._drain_until = "stopped", now + self.node.drain + GREETING
            self._change("draining")
            self._tell(leaving=True)

    def hinder(self, what: str) -> None:
        """What this node has to wait for before it can take part; "" for nothing."""
        if self._hindered and not what:
            self.waits_for = ""
        self._hindered = what

    def tick(self, now: float) -> None:
        """Time has passed; whatever has arrived by then was handed in before."""
        for link, peer in list(self.links.items()):
            if peer.rank is None and now - peer.opened > GREETING:
                self._close(link)
                self._dial_at = now
            elif peer.rank is not None and now - peer.heard > self.node.dead:
                self._close(link)
                self._dial_at = now
                self._gone(self._mine(f"rank {peer.rank} was silent for {self.node.dead:g} s"), now)
        if now - self._beaten >= BEAT:
            self._beaten = now
            self._tell(beat=True)
        if self.state == "waiting":
            (self._gather if self._is_head else self._dial)(now)
        elif self.state == "draining" and now > self._drain_until:
            self._end(self._because, clean=True)
        elif self.node.url and self.state != "ended":
            self._watch(self.node.url, now)

    # Greeting: both sides prove that they know the token, which never travels.

    def _admit(self, link: int, peer: Link, message: dict[str, Any], now: float) -> None:
        """A stranger on the head."""
        rank, agree, nonce = message.get("rank"), str(message.get("agree")), str(message.get("nonce"))
        proof = self._proof("hello", rank, agree, peer.nonce, nonce)
        if not self._same(message.get("proof"), proof) or not isinstance(rank, int):
            self._refuse(link, "its token is another one; set vllm_keeper_token alike on all nodes")
        elif not HEAD < rank < self.node.nodes:
            self._refuse(link, f"there is no rank {rank} among {self.node.nodes} nodes; run site.yml on all of them")
        elif not self._same(agree, self.node.agree):
            self._refuse(link, f"rank {rank} has another release or other options; run site.yml on all nodes")
        elif self.state != "waiting":
            self._close(link)
            self._gone(f"rank {rank} has started anew", now)
        else:
            for old in [name for name, other in self.links.items() if other.rank == rank]:
                self._close(old)
            peer.rank, peer.heard = rank, now
            self._send(link, welcome=self._proof("welcome", rank, agree, peer.nonce, nonce))

    def _greet(self, link: int, peer: Link, message: dict[str, Any], now: float) -> None:
        """The head, as long as it is a stranger to a worker."""
        rank, agree = self.node.rank, self.node.agree
        if "challenge" in message and not peer.challenge:
            peer.challenge = str(message["challenge"])
            proof = self._proof("hello", rank, agree, peer.challenge, peer.nonce)
            self._send(link, rank=rank, agree=agree, nonce=peer.nonce, proof=proof)
        elif "refused" in message:
            self._refused(link, f"the head, which refuses this node: {_plain(message['refused'])}", now)
        elif self._same(message.get("welcome"), self._proof("welcome", rank, agree, peer.challenge, peer.nonce)):
            peer.rank, peer.heard = HEAD, now
            self._wait("the head's word, which waits for all nodes")
        else:
            self._refused(link, "the head, whose token is another one; set vllm_keeper_token alike on all nodes", now)

    def _refuse(self, link: int, reason: str) -> None:
        self._send(link, refused=reason)
        self._close(link)
        self._say(f"refuses a node: {reason}")

    def _refused(self, link: int, reason: str, now: float) -> None:
        self._close(link)
        self._dial_at = now + BEAT
        self._wait(reason)

    def _proof(self, what: str, rank: object, agree: str, challenge: str, nonce: str) -> str:
        text = json.dumps([what, self.node.id, rank, agree, challenge, nonce])
        return hmac.new(self._token, text.encode(), hashlib.sha256).hexdigest()

    @staticmethod
    def _same(one: object, other: str) -> bool:
        return hmac.compare_digest(str(one).encode(errors="replace"), other.encode(errors="replace"))

    # Waiting

    def _gather(self, now: float) -> None:
        """Announce the epoch once all ranks are there: none of them has an engine, or ever had one in its life."""
        there = {peer.rank for peer in self.links.values()}
        missing = [str(rank) for rank in range(1, self.node.nodes) if rank not in there]
        if self._hindered:
            self._wait(self._hindered)
        elif missing:
            self._wait(f"rank {', '.join(missing)}")
        elif now < self._not_before:
            failed = self.memory.failed
            self._wait(f"the end of a pause of {pause(failed):g} s, after {failed} starts in a row that never answered")
        else:
            epoch = int(self._wall() * 1000)
            self._tell(start=epoch)
            self._start(epoch, now)

    def _dial(self, now: float) -> None:
        if self._hindered:
            self._wait(self._hindered)
        elif not self.links and now >= self._dial_at:
            self._dial_at = now + 2 * GREETING  # until then there is an answer: opened or lost
            self._do("connect")
            if not self.waits_for:
                self._wait(f"the head at {self.node.head}")

    # Running

    def _start(self, epoch: int, now: float) -> None:
        self.epoch, self._started = epoch, now
        # What is remembered of an epoch that ends with its keeper.
        self.memory = Memory(self.memory.failed + 1, self._mine("the keeper was killed"))
        self._do("remember")
        self._do("start")
        self._change("starting")
        if self._is_head and not self.node.url:
            self._serve(now)

    def _watch(self, url: str, now: float) -> None:
        """Ask the engine how it is, and end the epoch when it gives no sign of life."""
        every = self.node.hang / 6
        if self.state == "starting":
            self._ask("health", BEAT, now)
            if now - self._started > self.node.start_timeout:
                self._end(self._mine(f"the engine was not healthy {self.node.start_timeout:g} s after its start"))
        elif self.state == "draining":
            self._ask("port", BEAT, now)
            self._ask("metrics", BEAT if self._idle else BEAT / 4, now)  # the first that tells of none comes soon
        elif now - self._alive > self.node.hang:
            self._end(self._mine(f"the engine at {url} gave no token for {self.node.hang:g} s"))
        elif self._canary is None and self.state == "testing":
            self._serve(now)
        else:
            self._ask("metrics", every, now)
            if self.state == "testing":
                self._ask("canary", BEAT, now)
            elif self._canary and now - self._alive >= every + BEAT:  # the counters have had their say
                self._ask("canary", every, now)

    def _judge(self, status: int, now: float) -> None:
        """Of the answer to a canary. One that is refused tells nothing of the engine behind it."""
        if 400 <= status < 500 and status not in (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS):
            self._say(f"the engine answers HTTP {status} to a request for a token: a hang shows in its counters only")
            self._canary = None
        elif status != http.client.OK:
            return
        self._alive = now
        if self.state == "testing":
            self._serve(now)

    def _serve(self, now: float) -> None:
        self.memory.failed = 0
        self._do("remember")
        self.start_seconds = now - self._started
        self._change("serving")
        self._tell(serving=True)

    # Ending

    def _drain(self, because: str, now: float) -> None:
        """Let the engine finish what it has; one that has not answered yet has nothing."""
        if self.state == "serving":
            self._because, self._drain_until = because, now + self.node.drain
            self._change("draining")
            self._idle = 0
            if not self.node.idle_first:
                self._do("terminate")
        elif self.state != "draining":
            self._end(because, clean=True)

    def _fade(self, now: float) -> None:
        self._drain_until = min(self._drain_until, now + DRAINED)

    def _gone(self, reason: str, now: float, *, clean: bool = False) -> None:
        """Another node is away, or says that it will be."""
        if self.state == "draining" and self._is_head:
            self._fade(now)  # its part of the engine may have ended with the last request, whose answer is under way
        elif self.state == "draining":
            self._end(self._because, clean=True)
        elif self.state != "waiting":
            self._end(reason, clean=clean)

    def _end(self, reason: str, *, clean: bool = False) -> None:
        if self.state == "ended":
            return
        self._tell(end=reason, clean=clean)
        if self.epoch:
            unfinished = clean and self.state in ("starting", "testing")
            self.memory = self.last = Memory(self.memory.failed - unfinished, reason, self._wall())
            self._do("remember")
        self._because = reason
        self._change("ended")
        self._do("exit", 0 if clean else 1)

    def _mine(self, reason: str) -> str:
        return f"rank {self.node.rank}: {reason}" if self.node.nodes > 1 else reason

    # What all of these do

    def _do(self, *action: Any) -> None:
        self._actions.append(action)

    def _send(self, link: int, **message: Any) -> None:
        self._do("send", link, message)

    def _tell(self, **message: Any) -> None:
        for link, peer in self.links.items():
            if peer.rank is not None:
                self._send(link, **message)

    def _close(self, link: int) -> None:
        del self.links[link]
        self._do("close", link)

    def _ask(self, question: str, every: float, now: float) -> None:
        last, asked = self._asked.get(question, (now - every, False))
        if not asked and now - last >= every:
            self._asked[question] = (now, True)
            self._do("ask", question)

    def _wait(self, what: str) -> None:
        if self.waits_for != what:
            self.waits_for = what
            self._say(f"waits for {what}")
            self._do("status")

    def _change(self, state: str) -> None:
        self.state, self.waits_for = state, ""
        said = {
            "starting": "starts",
            "serving": f"answers after {self.start_seconds:.0f} s",
            "draining": f"drains: {self._because}",
            "ended": f"ends: {self._because}",
        }
        if self.epoch and state in said:
            self._do("say", f"epoch {self.epoch} {said[state]}")
        self._do("status")

    def _say(self, text: str) -> None:
        """Into the journal, once: some things happen every second."""
        if text not in self._said:
            self._said.add(text)
            self._do("say", text)


def _plain(text: object) -> str:
    """What somebody else says, as one line that the journal, systemd and a file can take; it may be a stranger's."""
    return " ".join(str(text).encode(errors="replace").decode().split())[:200]


def _label(text: str) -> str:
    """A text as the value of a label, which takes no other characters as they are."""
    return text[:200].replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def metrics(keeper: Keeper) -> str:
    """The state of a keeper, as node_exporter's textfile collector reads it."""
    labels = f'id="{keeper.node.id}",rank="{keeper.node.rank}"'
    reason = _label(keeper.last.reason)
    table: list[tuple[str, str, str, float]] = [
        ("state", f',state="{state}"', "Whether a keeper is in this state.", keeper.state == state) for state in STATES
    ]
    table += [
        ("epoch", "", "Number of the epoch: when it began, in milliseconds since 1970; 0: none.", keeper.epoch),
        ("failed_epochs", "", "Epochs in a row that never answered, the present one included.", keeper.memory.failed),
        ("start_seconds", "", "What the engine took until it answered; 0: it has not yet.", keeper.start_seconds),
    ]
    if keeper.waits_for:
        table.append(("waits", f',what="{_label(keeper.waits_for)}"', "Present while a keeper waits, and what for.", 1))
    if reason:
        when = "When the last epoch ended, in seconds since 1970, and why."
        table.append(("end_seconds", f',reason="{reason}"', when, keeper.last.ended))
    lines: list[str] = []
    for name, more, about, value in table:
        if not any(line.startswith(f"# HELP {METRIC}_{name} ") for line in lines):
            lines += [f"# HELP {METRIC}_{name} {about}", f"# TYPE {METRIC}_{name} gauge"]
        lines.append(f"{METRIC}_{name}{{{labels}{more}}} {float(value):.15g}")
    return "\n".join(lines) + "\n"


def parse(line: bytes) -> dict[str, Any] | None:
    """A message; None if it is none."""
    try:
        message = json.loads(line) if len(line) <= LINE else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
