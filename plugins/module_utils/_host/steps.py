"""Steps that a host needs, as data, and how they are taken; private to the collection.

Those who look at a host say what differs as a list of steps; check mode shows them, and a run takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .._errors import AccessError
from .places import File

__all__ = ["RunCommand", "Step", "take"]

# Exit status, output and errors of a command that is given a text to read.
RunCommand = Callable[[list[str], str], tuple[int, str, str]]


@dataclass(frozen=True)
class Step:
    """One step: a command, a file to write or a file to remove."""

    says: tuple[str, ...] = ()  # what it changes, for people; () where another step says it
    command: tuple[str, ...] = ()
    reads: str = ""  # what the command reads from its standard input
    write: File | None = None
    remove: Path | None = None


def take(steps: Iterable[Step], run: RunCommand) -> None:
    """Take the steps, in their order; raises AccessError with the words of a command that fails."""
    for step in steps:
        if step.write:
            step.write.write()
        if step.remove:
            step.remove.unlink(missing_ok=True)
        if step.command:
            code, output, errors = run(list(step.command), step.reads)
            if code:
                raise AccessError(f"`{' '.join(step.command)}` failed: {(errors or output).strip()}")
