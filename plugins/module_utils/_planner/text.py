"""Numbers and lists of names as messages and tables show them; private to the collection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

__all__ = ["counted", "ranges", "some"]


def counted(amount: int, thing: str) -> str:
    return f"{amount} {thing}{'' if amount == 1 else 's'}"


def some(names: Sequence[str]) -> list[str]:
    """A list for a message: of a thousand hosts three names are enough."""
    return [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else list(names)


def ranges(numbers: Sequence[int]) -> Iterator[str]:
    """0, 1, 2, 5 as 0-2 and 5."""
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
