"""Everything CI runs: ``python -m tests.run [--changed REV] [PHASE ...]``.

Two phases at a time, each as soon as what it needs is there: most of them wait for a network, a boot or a single
process, so that two keep two cores busy. The first that fails ends the run. Without ``CI=true`` or ``FRESH=1``, a phase
is passed over when all that it depends on is as it was when it last passed on this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from . import inputs
from .lab.settings import CACHE, ROOT

PYTHON = os.path.relpath(sys.executable)  # as a reader of the output may type it
# As in the Makefile: what a phase runs is this checkout's, whoever starts it.
ENVIRONMENT = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
GREEN = CACHE / "green"  # name of a phase -> what it depended on when it last passed
AT_ONCE = 2
EVERYTHING = ("*",)
_LAB = ("roles/*", "plugins/*", "playbooks/*", "inventories/lab/*", "ansible.cfg", "tests/stand_in/*", *inputs.COMMON)
_RULES = (
    "plugins/plugin_utils/alerts/*",
    "docs/alerts/*",
    "tests/rules/*",
    "tests/tools/docs.py",
    "tests/lab/programs/*",
    "requirements-dev.txt",
)
_QUIET_SECONDS = 30  # without a word from any phase: say what runs
_LAST_LINES = 40
# What pytest, Ansible and make say of a failure, perhaps in colour or in Molecule's frame. The last lines of a phase
# may be of what it tidied up afterwards.
_FAILURE = re.compile(r"^(\x1b\[[\d;]*m|[ │])*(FAILED\b|ERROR |E   |fatal: |make\S*: \*\*\* )")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A command, what must have run before it, and the files on which its result depends.

    A phase without files makes something for others: it runs when one of these does.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # patterns of inputs.matching
    aside: bool = False  # at a low priority, in nobody's place


def phases(scenarios: Sequence[str]) -> dict[str, Phase]:
    """All phases by name, in the order in which they are started if nothing is missing: the longest way first."""
    lab = (PYTHON, "-m", "tests.lab")
    pytest = (PYTHON, "-m", "pytest")
    found = [
        Phase("programs", (*lab, "programs"), aside=True),
        Phase("mirror", (*lab, "mirror")),
        Phase("unit", ("make", "unit"), files=EVERYTHING),
        Phase("lab hosts", (*lab, "fresh"), needs=("mirror",)),
        Phase("lab", (*pytest, "tests/lab", "--durations=10"), needs=("lab hosts", "programs"), files=_LAB),
        Phase(
            "cluster",
            (*pytest, "tests/cluster", "--durations=10"),
            needs=("lab hosts",),  # which begins with a new SSH key
            files=("tests/cluster/*", *_LAB),
        ),
        Phase(
            "alerts",
            (*pytest, "tests/alerts", "--durations=10"),
            needs=("lab hosts", "programs"),
            files=("tests/alerts/*", *_LAB),
        ),
        Phase("lint", ("make", "lint"), files=EVERYTHING),
        Phase("rules", (*pytest, "tests/rules"), needs=("programs",), files=_RULES),
        Phase("artifact", (*pytest, "tests/artifact"), needs=("mirror",), files=EVERYTHING),  # images of hosts
        *(
            Phase(
                f"molecule {name}",
                ("make", "molecule", f"SCENARIOS={name}"),
                needs=("mirror", "programs") if inputs.has_programs(name) else ("mirror",),
                files=tuple(inputs.of_scenario(name)),
            )
            for name in scenarios
        ),
    ]
    return {phase.name: phase for phase in found}


def scenarios() -> list[str]:
    """Names of the scenarios of Molecule, the longest first, so that none of these is left at the end."""
    slow = ["nvidia_driver_distro", "containers", "nvidia_driver", "enterprise_linux", "ubuntu", "vllm"]
    names = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    return sorted(names, key=lambda name: slow.index(name) if name in slow else len(slow))


def with_needs(names: Iterable[str], known: Mapping[str, Phase]) -> list[str]:
    """These phases and all that they need, in the order of the table."""
    wanted, todo = set(), list(names)
    while todo:
        name = todo.pop()
        wanted.add(name)
        todo += known[name].needs
    return [name for name in known if name in wanted]


def startable(waiting: Sequence[str], running: Iterable[str], known: Mapping[str, Phase]) -> Iterator[str]:
    """Those whose needs are neither waiting nor running any more, as many as there are places."""
    running = set(running)
    places = AT_ONCE - sum(not known[name].aside for name in running)
    for name in waiting:
        if running.union(waiting) & set(known[name].needs):
            continue
        if known[name].aside:
            yield name
        elif places > 0:
            places -= 1
            yield name


class Job:
    """A running phase, whose output is shown line by line as it comes."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.lines: list[str] = []
        self._start = time.monotonic()
        self.seconds = 0.0
        self._process = subprocess.Popen(
            phase.command,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a process group of its own, which can be ended as a whole
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                print(f"{self.phase.name:<21}| {line}", end="", flush=True)

    @property
    def running_seconds(self) -> float:
        return time.monotonic() - self._start

    def ended(self) -> int | None:
        """The exit code once it has ended."""
        code = self._process.poll()
        if code is not None and not self.seconds:
            self._reader.join(timeout=10)  # a daemon that it has left behind may hold the pipe
            self.seconds = self.running_seconds
        return code

    def end(self) -> None:
        """End it with all that it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout=30)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(timeout=10)


@dataclasses.dataclass
class Result:
    """What became of a run: seconds of each phase that ended, and the one that failed."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    failed: Job | None = None


def run(names: Sequence[str], known: Mapping[str, Phase], keys: Mapping[str, str], green: Path = GREEN) -> Result:
    """Run phases, AT_ONCE at a time; what has passed is noted under its key."""
    waiting, running, result = list(names), dict[str, Job](), Result()
    last_word = time.monotonic()
    try:
        while waiting or running:
            for name in list(startable(waiting, running, known)):
                waiting.remove(name)
                print(f"=== {name}: {' '.join(known[name].command)}", flush=True)
                running[name] = Job(known[name])
            for name, job in list(running.items()):
                code = job.ended()
                if code is None:
                    continue
                del running[name]
                result.seconds[name] = job.seconds
                print(f"=== {name}: {'failed' if code else 'passed'} after {job.seconds:.0f} s", flush=True)
                if code:
                    result.failed = job
                    return result
                if name in keys:
                    green.mkdir(parents=True, exist_ok=True)
                    (green / name.replace(" ", "-")).write_text(keys[name])
            if time.monotonic() - last_word > _QUIET_SECONDS:
                last_word = time.monotonic()
                states = (f"{name} {job.running_seconds:.0f} s" for name, job in running.items())
                print(f"=== running: {', '.join(states)}; waiting: {', '.join(waiting) or 'none'}", flush=True)
            time.sleep(0.2)
    finally:
        for job in running.values():
            job.end()
    return result


def processors() -> tuple[float, float]:
    """How long this machine's processors have worked, and how long they have been there; in one unit."""
    times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(times) - times[3] - times[4], sum(times)  # less idle and waiting for a disk


def report(result: Result, skipped: Sequence[str], wall: float, busy: float) -> None:
    """Print the table of phases, and of a failure its last lines and how to repeat it."""
    print("\n=== phases")
    for name, spent in result.seconds.items():
        failed = result.failed and result.failed.phase.name == name
        print(f"{spent:7.0f} s  {name}{'  FAILED' if failed else ''}")
    for name in skipped:
        print(f"      -    {name}  (as it was when it last passed)")
    print(f"{wall:7.0f} s  in all, {AT_ONCE} at a time; this machine's processors were busy for {busy:.0%} of that")
    print(f"phases: {len(result.seconds) - bool(result.failed)} passed, {int(bool(result.failed))} failed", flush=True)
    if result.failed:
        print(f"\n=== the last lines of {result.failed.phase.name}")
        print("\n".join(result.failed.lines[-_LAST_LINES:]))
        print(f"\n=== what {result.failed.phase.name} said of a failure")
        print("\n".join([line for line in result.failed.lines if _FAILURE.match(line)][-_LAST_LINES:]))
        print(f"\nOnce more: {PYTHON} -m tests.run '{result.failed.phase.name}'", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; returns the exit code."""
    known = phases(scenarios())
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of: {', '.join(known)} (default: all)")
    parser.add_argument("--changed", metavar="REV", help="only phases that depend on what has changed since a revision")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.phases if name not in known]:
        parser.error(f"there is no phase {', '.join(unknown)}; there are: {', '.join(known)}")
    started, (worked, there) = time.monotonic(), processors()
    chosen = options.phases or [name for name, phase in known.items() if phase.files]
    if options.changed:
        changed = inputs.changed_since(options.changed)
        chosen = [name for name in chosen if inputs.matching(changed, known[name].files)]
    files = inputs.tracked()
    keys = {
        name: inputs.digest(inputs.matching(files, known[name].files), repr(known[name].command))
        for name in chosen
        if known[name].files
    }
    skipped: list[str] = []
    if not (options.phases or os.environ.get("CI") == "true" or os.environ.get("FRESH") == "1"):
        skipped = [name for name in chosen if is_green(name, keys[name])]
    names = with_needs((name for name in chosen if name not in skipped), known)
    for name in skipped:
        print(f"=== {name}: passed over, nothing that it depends on has changed since it last passed (FRESH=1 runs it)")
    if not names:
        print("=== nothing to run")
    try:
        result = run(names, known, keys)
    finally:
        if "mirror" in names and not options.phases:  # CI leaves nothing behind; who names phases goes on with the lab
            subprocess.run([PYTHON, "-m", "tests.lab", "down"], cwd=ROOT, check=False)
    work_now, now = processors()
    report(result, skipped, time.monotonic() - started, (work_now - worked) / max(now - there, 1))
    return int(bool(result.failed))


def is_green(name: str, key: str, green: Path = GREEN) -> bool:
    """Whether a phase has passed on this machine with this very key."""
    note = green / name.replace(" ", "-")
    return note.is_file() and note.read_text() == key


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
