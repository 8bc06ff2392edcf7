"""Finds in the journal of an engine why it did not come up; private to the collection.

vLLM is several processes in one journal. The one that fails first says why; the others follow with tracebacks of their
own ("See root cause above"), so that the end of the journal never tells. :func:`first_error` finds the first error that
is not such an echo. What the kernel and systemd did to the processes counts as well: a process that was killed says
nothing itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["Entry", "Evidence", "evidence_of", "first_error", "read_journal"]

LINES = 40  # of an excerpt
WIDTH = 600  # characters of a line
MESSAGE = 10  # lines of the message of an exception
BEFORE = 2  # lines that stand before the error
LAST = 30  # lines that are shown where there is no error

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# (EngineCore pid=130), (Worker_TP0 pid=151), (RayWorkerWrapper pid=77, ip=10.0.0.12)
_PROCESS = re.compile(r"^\((?P<process>[\w.:-]+ pid=\d+(?:, ip=[\w.:]+)?)\) ?")
_HEAD = re.compile(r"^(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)? \[[^\]]*\] ?")  # of vLLM's own log
_BARE_ERROR = re.compile(r"^(?:ERROR|CRITICAL|FATAL)\b[: ]")  # uvicorn, and whoever logs in Python's own format
_ERRORS = ("ERROR", "CRITICAL", "FATAL")
_TRACEBACK = "Traceback (most recent call last):"
_CHAIN = ("During handling of the above exception", "The above exception was the direct cause")
# Ends of a process without a traceback.
_FATAL = re.compile(
    r"^(?:Fatal Python error: |terminate called |.*error while loading shared libraries: "
    r"|(?:vllm|\S*python\S*|\S*/vllm|usage|\S+\.py)\b[^:]*: error: )"
)
_SYSTEMD = re.compile(r"^(?:\S+\.service|keeper): ")  # and the keeper of the engine, which is its parent
_KILLED = re.compile(
    r"killed by the OOM killer|code=(?:killed|dumped)|status=2\d\d/|Failed at step |Failed to load environment files"
    r"|Unable to locate executable|Failed to (?:set up|spawn|execute)|timed out"
    r"|^keeper: (?:cannot |.* (?:was killed by SIG|cannot be started: |gave no token |was not healthy |was silent ))"
)
# What the other processes say of it afterwards.
_ECHO = re.compile(
    r"[Ss]ee root cause above|[Ss]ee stack trace for|Engine core initialization failed|WorkerProc initialization failed"
    r"|Engine process failed to start|EngineDeadError|EngineCore encountered an issue|died unexpectedly"
    r"|CancelledError|KeyboardInterrupt|SystemExit|BrokenPipeError|ConnectionResetError"
)


@dataclass(frozen=True)
class Entry:
    """One line of the journal of a unit; ``invocation`` tells one start of it from another."""

    message: str
    invocation: str = ""
    seconds: float = 0.0  # since 1970


@dataclass(frozen=True)
class Evidence:
    """What the journal shows of one start of a unit: its first error, or else (``error``: false) its last lines."""

    lines: tuple[str, ...]
    error: bool
    invocation: str
    seconds: float  # when that start began, since 1970


@dataclass
class _Section:
    """Lines of one process that belong together."""

    process: str
    before: list[str]
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Take one more line in; a process that fails for ever does not fill the memory."""
        if len(self.lines) < 2000:
            self.lines.append(line)

    @property
    def traceback(self) -> bool:
        """Whether it holds the end of a program, and not only a complaint."""
        return any(line.startswith(_TRACEBACK) or _FATAL.match(line) or _KILLED.search(line) for line in self.lines)

    @property
    def echo(self) -> bool:
        """Whether all that it says is that another process has failed."""
        said = [line for part in _parts(self.lines) for line in part.message]
        return any(map(_ECHO.search, said)) and not any(map(_telling, said))


@dataclass
class _Part:
    """A traceback of a section, or its lines without one."""

    frames: list[str] = field(default_factory=list)
    message: list[str] = field(default_factory=list)
    link: str = ""  # to the exception before it


def read_journal(output: str) -> list[Entry]:
    """The entries that ``journalctl --output=json --all`` prints."""
    entries = []
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut off
        message = record.get("MESSAGE") or ""
        if isinstance(message, list):  # bytes of what is no plain text, colours for one
            message = bytes(part for part in message if isinstance(part, int)).decode(errors="replace")
        # The first is of what the unit says, the second of what systemd says of it.
        invocation = record.get("_SYSTEMD_INVOCATION_ID") or record.get("INVOCATION_ID")
        entries.append(
            Entry(
                message=str(message),
                invocation=str(invocation or ""),
                seconds=int(record.get("__REALTIME_TIMESTAMP") or 0) / 1e6,
            )
        )
    return entries


def evidence_of(entries: Sequence[Entry], restarts: int = 0) -> Evidence | None:
    """The evidence in the journal of a unit; None if it is empty.

    The last start counts. Where it shows no error and systemd has made it by itself, ``restarts`` times by now, an
    earlier one has failed, and the last of these with an error is it.
    """
    starts: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.invocation:
            starts.setdefault(entry.invocation, []).append(entry)
    if not starts:
        return None
    latest = list(starts.items())[::-1]
    for invocation, lines in latest[: 1 + max(0, restarts)]:
        found = first_error([entry.message for entry in lines])
        if found:
            return Evidence(tuple(found), True, invocation, lines[0].seconds)
    invocation, lines = latest[0]
    shown = tuple(_cut(_clean(entry.message)) for entry in lines[-LAST:])
    return Evidence(shown, False, invocation, lines[0].seconds)


def first_error(lines: Iterable[str]) -> list[str]:
    """An excerpt of the first error in the journal of one start, at most :data:`LINES` lines; empty if there is none.

    A program that ended with a traceback, or was ended, says more than a line that merely calls itself an error.
    """
    sections = list(_sections(lines))
    own = [section for section in sections if not section.echo]
    ended = [section for section in own if section.traceback]
    chosen = next(iter(ended or own or sections), None)
    return list(_excerpt(chosen)) if chosen else []


def _clean(line: str) -> str:
    """A line without colours, and of a progress bar its last state."""
    return _ANSI.sub("", line).rstrip().rpartition("\r")[2]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[:WIDTH]} ..."


def _telling(line: str) -> bool:
    """Whether a line names an exception that is none of another process."""
    return bool(re.match(r"[\w.]+(?:Error|Exception|Interrupt)\b", line)) and not _ECHO.search(line)


def _sections(lines: Iterable[str]) -> Iterator[_Section]:
    """The errors of all processes, in the order in which they began."""
    found: list[_Section] = []
    open_: dict[str, _Section] = {}
    before: dict[str, list[str]] = {}
    ended: _Section | None = None  # what systemd says of it
    for raw in lines:
        line = _clean(raw)
        if _SYSTEMD.match(line):
            open_.clear()
            if _KILLED.search(line):
                if not ended:
                    ended = _Section("", [])
                    found.append(ended)
                ended.add(line)
            continue
        process, text = _process(line)
        head = _HEAD.match(text)
        body = text[head.end() :] if head else text
        level = head.group("level") if head else "ERROR" if _BARE_ERROR.match(text) else None
        if level in _ERRORS or (level is None and (body.startswith(_TRACEBACK) or _FATAL.match(body))):
            if process not in open_:
                open_[process] = _Section(process, before.get(process, [])[-BEFORE:])
                found.append(open_[process])
            open_[process].add(body)
        elif level is None and process in open_:
            open_[process].add(body)
        else:
            open_.pop(process, None)
            if process and body.strip():
                before.setdefault(process, []).append(body)
                del before[process][:-BEFORE]
    return iter(found)


def _process(line: str) -> tuple[str, str]:
    """The process that a line names, and the line without it."""
    process = ""
    while match := _PROCESS.match(line):
        process, line = match.group("process"), line[match.end() :]
    return process, line


def _parts(lines: Sequence[str]) -> list[_Part]:
    """The tracebacks of a section one by one; lines before the first are a part as well."""
    parts: list[_Part] = []
    current = _Part()
    inside = False  # among the frames of a traceback
    for line in lines:
        if line.startswith(_TRACEBACK):
            if current.message or current.frames:
                parts.append(current)
                current = _Part()
            inside = True
        elif line.startswith(_CHAIN):
            parts.append(current)
            current, inside = _Part(link=line), False
        elif inside and (line.startswith(" ") or not line):
            current.frames.append(line)
        elif line.strip():
            inside = False
            current.message.append(line)
    return [part for part in [*parts, current] if part.message or part.frames]


def _excerpt(section: _Section) -> Iterator[str]:
    """The messages of a section, each with the last frame of its traceback."""
    shown = list(section.before)
    for part in _parts(section.lines):
        shown += [part.link] if part.link else []
        if part.frames:
            last = max((i for i, frame in enumerate(part.frames) if frame.startswith("  File ")), default=0)
            shown += [_TRACEBACK, *(["  ..."] if last else []), *part.frames[last : last + 2]]
        shown += part.message[:MESSAGE]
    tag = f"({section.process}) " if section.process else ""
    for number, line in enumerate(shown[:LINES]):
        yield _cut(f"{tag}{line}" if number == 0 else line)
