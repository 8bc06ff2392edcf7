"""What the keepers of a host's instances say of themselves; private to the collection.

A keeper (roles/vllm/files/keeper.py) leaves its state in its unit's runtime directory, as metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .system import read_text

__all__ = ["SERVING", "KeeperState", "read_keepers"]

SERVING = "serving"
_METRIC = re.compile(r"^gpuhosts_keeper_(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class KeeperState:
    """What one keeper says."""

    id: str  # of the instance
    state: str | None = None  # None: there is no keeper, as its unit does not run
    waits_for: str = ""
    epoch: int = 0
    reason: str = ""  # of the end of the last epoch


def read_keepers(root: Path, instances: Iterable[str]) -> Iterator[KeeperState]:
    """The keepers of these instances; not of one that an older release of the role vllm runs without."""
    for name in instances:
        place = root / "run/vllm" / name
        text = read_text(place / "keeper.prom")
        if text:
            yield _told(name, text)
        elif not place.is_dir():
            yield KeeperState(name)


def _told(name: str, text: str) -> KeeperState:
    state, waits_for, epoch, reason = None, "", 0, ""
    for match in _METRIC.finditer(text):
        labels = {key: re.sub(r"\\(.)", r"\1", value) for key, value in _LABEL.findall(match["labels"])}
        if match["name"] == "state" and match["value"] == "1":
            state = labels.get("state")
        elif match["name"] == "waits":
            waits_for = labels.get("what", "")
        elif match["name"] == "epoch":
            epoch = int(float(match["value"]))
        elif match["name"] == "end_seconds":
            reason = labels.get("reason", "")
    return KeeperState(name, state, waits_for, epoch, reason)
