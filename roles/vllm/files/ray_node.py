"""The head of an engine that is joined by Ray: Ray's head and the API server, which live and die together.

Usage: ``ray_node.py RAY START OPTIONS... -- VLLM SERVE OPTIONS...``. It ends when either of the two does, with its exit
status; the keeper, whose child this is, then kills the other one. SIGTERM goes to the API server alone, which finishes
the requests in flight.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

LISTENS = 0.2  # seconds between two looks whether Ray listens


def place(options: list[str]) -> tuple[str, int]:
    """Where Ray's head will listen."""
    given = dict(word[2:].split("=", 1) for word in options if word.startswith("--") and "=" in word)
    return given["node-ip-address"], int(given["port"])


def listens(where: tuple[str, int]) -> bool:
    """Whether somebody does there."""
    try:
        socket.create_connection(where, timeout=1).close()
    except OSError:
        return False
    return True


def main(words: list[str]) -> int:
    """Run both until one ends; the exit status."""
    ray_words, vllm_words = words[: words.index("--")], words[words.index("--") + 1 :]
    ray = subprocess.Popen(ray_words)
    while not listens(place(ray_words)):
        if ray.poll() is not None:
            print(f"ray_node: Ray's head ended with status {ray.returncode} before it listened", flush=True)
            return 1
        time.sleep(LISTENS)
    told: list[int] = []  # to stop, while the API server is being made
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    vllm = subprocess.Popen(vllm_words)
    signal.signal(signal.SIGTERM, lambda *_: vllm.terminate())
    if told:
        vllm.terminate()
    names = {ray.pid: "Ray's head", vllm.pid: "the API server"}
    while True:
        pid, status = os.wait()
        if pid in names:
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            print(f"ray_node: {names[pid]} ended with status {code}", flush=True)
            return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
