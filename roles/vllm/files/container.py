"""The main process of an engine that runs in a container: starts it, says what it says, and ends when it ends.

Usage: ``container.py NAME WORD...``, the words as they follow ``docker run``; without them what is there of that name
is removed, unless it is somebody else's. What only the moment of the start can tell is added to them: the user and the
limits that this process has itself, and what the host has of shared memory, of InfiniBand, and of an init for
containers.

The container is a child of Docker's daemon and not of this process. It is waited for by a handle of its own main
process and told to stop by a signal to that, so that neither takes the daemon, which may restart meanwhile
(``live-restore``). What it says is followed by ``docker logs``, which is taken up again after such a restart. SIGKILL
of this process leaves the container: whoever starts this one removes it before.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCKER = "docker"
SHARED_MEMORY = Path("/dev", "shm")
DEVICES = ("/dev/infiniband",)  # for RDMA, where the host has it
LABEL = "gpuhosts.vllm.instance"  # of an instance's container, with the instance for value
LIMITS = {"memlock": resource.RLIMIT_MEMLOCK, "nofile": resource.RLIMIT_NOFILE}

ANSWER_SECONDS = 60  # in which a daemon that restarts is there again
LAST_WORDS_SECONDS = 10  # for what the container has said before its end
PAUSE_SECONDS = 0.5
FAILED = 1  # exit status where that of the container is not known
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z ")  # of `docker logs --timestamps`, all of the same length


def own() -> list[str]:
    """Options of ``docker run`` that pass on what this process and its host have."""
    limits = {name: resource.getrlimit(number) for name, number in LIMITS.items()}
    memory = os.statvfs(SHARED_MEMORY)
    return [
        # Reaps orphans, and lets a signal end an engine that does not handle it yet. Debian's engine comes without.
        *(["--init"] if shutil.which("docker-init") else []),
        f"--user={os.getuid()}:{os.getgid()}",
        *(f"--ulimit={name}={soft}:{hard}" for name, (soft, hard) in limits.items()),  # -1 is unlimited to both
        f"--shm-size={memory.f_blocks * memory.f_frsize}",
        *(f"--device={path}" for path in DEVICES if Path(path).exists()),
    ]


def state(name: str) -> dict[str, Any] | None:
    """What the daemon says of a container; None: it does not answer, or knows no such container."""
    done = subprocess.run(
        [DOCKER, "inspect", "--type=container", "--format={{json .State}}", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def handle_of(name: str) -> int | None:
    """A descriptor that is readable once the container's main process has ended; None: it has."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        found = state(name)
        if found is None:
            time.sleep(PAUSE_SECONDS)
            continue
        if not found["Pid"]:
            return None
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(found["Pid"])
            again = state(name)
            if again is None or again["Pid"] == found["Pid"]:
                return handle
            os.close(handle)  # another process may have got the number
    return None


def end_of(name: str) -> dict[str, Any]:
    """What the daemon says of a container whose main process has ended."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        found = state(name)
        if found and not found["Running"]:
            return found
        time.sleep(PAUSE_SECONDS)
    return {"ExitCode": FAILED}


def forward(number: int, handle: int, name: str) -> None:
    """Send a signal to the container's main process."""
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    except PermissionError:  # user namespaces: it is another user's
        subprocess.run([DOCKER, "kill", f"--signal={number}", name], stdout=subprocess.DEVNULL, check=False)


def wait(handle: int, wake: int, name: str) -> None:
    """Wait for the end of the process, passing on the signals whose numbers arrive at ``wake``."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.register(wake, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if handle in ready:
            return
        for number in os.read(wake, 64):
            forward(number, handle, name)


class Log(threading.Thread):
    """Says what the container says, each line once."""

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True)
        self._name = name
        self._last = b""  # the newest line's time
        self._ended = threading.Event()

    def run(self) -> None:
        """Follow it until it has ended."""
        while not self._ended.is_set():
            self._pass("--follow")
            self._ended.wait(PAUSE_SECONDS)
        self._pass()

    def finish(self) -> None:
        """The container has ended."""
        self._ended.set()
        self.join(LAST_WORDS_SECONDS)

    def _pass(self, *options: str) -> None:
        said = self._last
        since = [f"--since={said.decode().strip()}"] if said else []
        command = [DOCKER, "logs", "--timestamps", *options, *since, self._name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as reader:
            for line in reader.stdout or ():
                stamp = _STAMP.match(line)
                if stamp and stamp[0] <= said:
                    continue  # `since` is not exact
                if stamp:  # lines of the two outputs may be out of order
                    self._last = max(self._last, stamp[0])
                sys.stdout.buffer.write(line[stamp.end() :] if stamp else line)
                sys.stdout.buffer.flush()


def tell(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Docker that answers at once; why it failed is said."""
    done = subprocess.run([DOCKER, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip(), flush=True)
    return done


def remove(name: str) -> int:
    """Leave no container of that name, unless it is somebody else's; 0 if there is none any more."""
    shown = f'--format={{{{.ID}}}} {{{{.Label "{LABEL}"}}}} {{{{.Image}}}}'
    listed = tell("ps", "--all", "--no-trunc", f"--filter=name=^/{re.escape(name)}$", shown)
    if listed.returncode or not listed.stdout.strip():
        return listed.returncode
    number, label, image = listed.stdout.rstrip("\n").split(" ", 2)
    if name != f"vllm-{label}":
        print(
            f"ERROR: the container {name} of the image {image} is none of this collection, and has the name of this "
            f"instance's. Rename it with `docker rename {name} OTHER`, or remove it with `docker rm --force {name}`.",
            flush=True,
        )
        return FAILED
    return tell("rm", "--force", "--volumes", number).returncode


def main(words: Sequence[str]) -> int:
    """Run a container to its end, or remove it; returns the exit status."""
    name, *rest = words
    if not rest:
        return remove(name)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    started = subprocess.run(
        [DOCKER, "run", "--detach", f"--name={name}", *own(), *rest], stdout=subprocess.DEVNULL, check=False
    )
    if started.returncode:
        return started.returncode  # the client has said why
    handle = handle_of(name)
    log = Log(name)
    log.start()
    if handle is not None:
        wait(handle, wake, name)
    end = end_of(name)
    log.finish()
    if end.get("OOMKilled"):
        print(f"ERROR: {name}: a process of the container was killed by the OOM killer", flush=True)
    return int(end["ExitCode"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
