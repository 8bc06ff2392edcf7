"""An engine of several nodes, as far as these depend on each other: how they meet, what each does without the other.

As vLLM 0.32 was measured: the head answers once all nodes have met; each token takes an answer of every node; a closed
connection ends an engine whose tensor parallelism goes over it at once, and is not noticed by a pipeline, which waits
for its next stage; a headless node whose head is gone stays for ever, and joins no other.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

_TICK = 0.2  # seconds


class Nodes:
    """The other nodes, on the head; none where there are no others."""

    def __init__(self, peers: Sequence[socket.socket] = (), *, pipeline: bool = False) -> None:
        self._peers = peers
        self._pipeline = pipeline
        self._lock = threading.Lock()

    def step(self, aborted: threading.Event) -> None:
        """One step of all nodes, which lasts for as long as one of them gives no answer, or until it is aborted."""
        with self._lock:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.sendall(b"s")
                while not aborted.is_set() and not self._answers(peer):
                    aborted.wait(_TICK)

    @staticmethod
    def _answers(peer: socket.socket) -> bool:
        readable, _, _ = select.select([peer], [], [], _TICK)
        try:
            return bool(readable and peer.recv(1))
        except OSError:
            return False

    def watch(self, gone: Callable[[str], None]) -> None:
        """Tell, from a thread of its own, that a node has closed its connection, if that is noticed."""
        if self._peers and not self._pipeline:
            threading.Thread(target=self._watch, args=(gone,), daemon=True).start()

    def _watch(self, gone: Callable[[str], None]) -> None:
        while all(map(_is_open, self._peers)):
            time.sleep(_TICK)
        gone("RuntimeError: Connection closed by peer")


def _is_open(peer: socket.socket) -> bool:
    try:
        return bool(peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def meet(options: argparse.Namespace) -> Nodes:
    """Wait, on the head, for all other nodes; without limit, as vLLM does."""
    others = (options.nnodes or 1) - 1
    if not others:
        return Nodes()
    peers: list[socket.socket] = []
    with socket.create_server((options.master_addr, options.master_port)) as store:
        while len(peers) < others:
            peer, _ = store.accept()
            if peer.recv(1):
                peers.append(peer)
    return Nodes(peers, pipeline=(options.pipeline_parallel_size or 1) > 1)


def follow(options: argparse.Namespace) -> None:
    """Be a headless node, until SIGTERM and whatever becomes of the head."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=_serve, args=(options,), daemon=True).start()
    ended.wait()


def _serve(options: argparse.Namespace) -> None:
    if not options.master_addr:
        return
    head = None
    while head is None:
        with contextlib.suppress(OSError):
            head = socket.create_connection((options.master_addr, options.master_port), timeout=5)
        time.sleep(_TICK)
    head.settimeout(None)
    with contextlib.suppress(OSError):
        head.sendall(b"h")
        while step := head.recv(1):
            head.sendall(step)
