"""Steps that a host needs, as data, and how they are taken; private to the collection.

Those who look at a host say what differs as a list of steps; check mode shows them, and a run takes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .._errors import AccessError
from .places import File
from .system import answer

__all__ = ["Step", "take"]

_SECONDS = 300  # SELinux's policy is compiled anew


@dataclass(frozen=True)
class Step:
    """One step: a command, a file to write or a file to remove."""

    says: tuple[str, ...] = ()  # what it changes, for people; () where another step says it
    command: tuple[str, ...] = ()
    reads: str = ""  # what the command reads from its standard input
    write: File | None = None
    remove: Path | None = None


def take(steps: Iterable[Step]) -> None:
    """Take the steps, in their order; raises AccessError with the words of a command that fails."""
    for step in steps:
        if step.write:
            step.write.write()
        if step.remove:
            step.remove.unlink()
        if step.command:
            code, output, errors = answer(step.command, _SECONDS, step.reads)
            if code:
                said = (errors or output).strip() or "it is not there, or takes too long"
                raise AccessError(f"`{' '.join(step.command)}` fails: {said}")
