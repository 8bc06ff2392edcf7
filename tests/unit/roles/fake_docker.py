#!/usr/bin/env python3
"""A stand-in for the command ``docker``: containers are processes, and what is known of them lies below FAKE_DOCKER.

A file ``down`` there is a daemon that does not answer. ``docker logs --follow`` ends when it appears, as when a daemon
restarts with live-restore.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["FAKE_DOCKER"])
IMAGE = "IMAGE"


def note(name: str, **state: object) -> None:
    new = HOME / f"{name}.new"
    new.write_text(json.dumps({"OOMKilled": False, **state}))
    new.replace(HOME / f"{name}.json")


def keep(name: str, words: list[str]) -> None:
    """What the daemon does of a container: start it, keep its log, note its end."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        note(name, Pid=process.pid, Running=True, ExitCode=0)
        with (HOME / f"{name}.log").open("a", buffering=1) as log:
            for line in process.stdout or ():
                now = time.time_ns()
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
                log.write(f"{stamp}.{now % 10**9:09}Z {line}")
    code = process.returncode
    oom = (HOME / "oom").exists()
    note(name, Pid=0, Running=False, ExitCode=128 - code if code < 0 else code, OOMKilled=oom)


def run(words: list[str]) -> int:
    place = words.index(IMAGE)
    (HOME / "options.json").write_text(json.dumps(words[:place]))
    name = next(word.partition("=")[2] for word in words if word.startswith("--name="))
    if (HOME / f"{name}.json").exists():
        print(f"docker: Error response from daemon: Conflict. The name {name} is in use.", file=sys.stderr)
        return 125
    subprocess.Popen([sys.executable, __file__, "keep", name, *words[place + 1 :]], start_new_session=True)
    while not (HOME / f"{name}.json").exists():
        time.sleep(0.01)
    return 0


def logs(words: list[str]) -> int:
    name = words[-1]
    since = next((word.partition("=")[2] for word in words if word.startswith("--since=")), "")
    (HOME / f"{name}.log").touch()
    with (HOME / f"{name}.log").open() as log:
        while True:
            ended = not json.loads((HOME / f"{name}.json").read_text())["Running"]
            for line in log:
                if line[: len(since)] >= since:
                    print(line, end="", flush=True)
            if ended or "--follow" not in words or (HOME / "down").exists():
                return 0
            time.sleep(0.01)


def listed(words: list[str]) -> int:
    """The containers whose name a filter has, as the wrapper wants them shown: id, a label, image."""
    pattern = next(word for word in words if word.startswith("--filter=name=")).removeprefix("--filter=name=")
    for path in HOME.glob("vllm-*.json"):
        if re.search(pattern, f"/{path.stem}"):
            known = json.loads(path.read_text())
            print(known["Id"], known["Label"], known["Image"])
    return 0


def main(verb: str, words: list[str]) -> int:
    if verb == "keep":
        keep(words[0], words[1:])
    elif (HOME / "down").exists():
        print("Cannot connect to the Docker daemon.", file=sys.stderr)
        return 1
    elif verb == "run":
        return run(words)
    elif verb == "logs":
        return logs(words)
    elif verb == "ps":
        return listed(words)
    elif verb == "rm":
        next(path for path in HOME.glob("*.json") if json.loads(path.read_text()).get("Id") == words[-1]).unlink()
    else:
        state = HOME / f"{words[-1]}.json"
        print(state.read_text() if state.exists() else "")
        return 0 if state.exists() else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
