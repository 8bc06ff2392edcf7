"""The directories of models that engines load from: their names, and what is in them; private to the collection.

A directory is there when it is complete: ``model_fetch`` makes it under another name. ``.complete`` in it lists its
files, so that a look need not read them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model_fetch import COMPLETE, Item, is_intact, items_of
from .places import remove_all

__all__ = [
    "Look",
    "check_sums",
    "collect",
    "collectable",
    "free_bytes",
    "look_at",
    "manifest_of",
    "place_of",
]


# A revision whose directory tells it and its model apart from all others when `/` is written `--`.
_PLAIN = re.compile(r"(?!.*--)[^/.-][^/]*(/[^/.-][^/]*)*")


def place_of(source: str, revision: str | None) -> str:
    """The name of the directory of a model of the hub; no two revisions have the same.

    Of a revision that is not plain, as one with ``--`` in it, what is neither letter nor digit is written by its
    number: ``a--b`` as ``.a.2d..2d.b``. No plain one begins with a dot, and no part of a model's id with a dash.

    Code of a model becomes a Python package of that name: transformers knows what to do with ``-`` and ``.`` in it, and
    with nothing else (dynamic_module_utils.py).
    """
    said = revision or "main"
    if not _PLAIN.fullmatch(said) or ("/" in said and "/" not in source):
        said = "." + re.sub(r"[^A-Za-z0-9_]", lambda match: f".{ord(match[0]):x}.", said)
    return f"{source}--{said}".replace("/", "--")


@dataclass(frozen=True)
class Look:
    """What there is of a model."""

    complete: bool
    there: int = 0  # bytes that need not come again
    damaged: tuple[str, ...] = ()  # files of a directory that was complete and is not any more
    commit: str | None = None
    foreign: bool = False  # the directory is somebody else's


def look_at(directory: Path, place: str, *, verify: bool) -> Look:
    """Look whether a model is there, by the sizes and ages of its files, or by their checksums."""
    final, partial = directory / place, directory / f".{place}.partial"
    there = _size(partial)
    if not final.exists():
        return Look(complete=False, there=there)
    manifest = manifest_of(final)
    if manifest is None:
        return Look(complete=False, foreign=True)
    damaged = []
    sound = 0
    for item, file in zip(items_of(manifest), manifest["files"]):
        path = final / item.path
        status = path.stat() if path.is_file() else None
        known = status is not None and (status.st_size, status.st_mtime_ns) == (item.size, file["mtime"])
        if not known or (verify and not is_intact(path, item)):
            damaged.append(item.path)
        else:
            sound += item.size
    return Look(not damaged, sound + there, tuple(damaged), manifest["commit"])


def manifest_of(final: Path) -> dict[str, Any] | None:
    """The list of files in a directory of the store; None where that has none."""
    try:
        manifest: dict[str, Any] = json.loads((final / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest


def check_sums(root: Path, sums: Path) -> list[str]:
    """The files of a directory that are not what a list says, which is one as sha256sum(1) writes it."""
    wrong = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition(" ")
        path = root / name.lstrip(" *").removeprefix("./")
        if not path.is_file() or not is_intact(path, Item(path.name, path.stat().st_size, digest)):
            wrong.append(path.name)
    return wrong


def collectable(directory: Path, wanted: Iterable[str], references: Iterable[Path]) -> dict[str, int]:
    """What is in the store and neither wanted nor used by an engine, with its bytes.

    :param references: files in which the paths of models stand that are in use
    """
    names = set(wanted)
    keep = {*names, *(f".{name}.partial" for name in names)}
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in references]
    found = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        begun = re.fullmatch(r"\..+--.+\.partial", path.name) and path.is_dir()
        ours = begun or manifest_of(path) is not None
        used = any(re.search(rf"{re.escape(str(path))}(?![\w.-])", text) for text in texts)
        if ours and path.name not in keep and not used:
            found[path.name] = _size(path)
    return found


def collect(directory: Path, names: Mapping[str, int]) -> None:
    """Remove what nothing needs: first out of the way in one rename, so that no half of it is taken for a model."""
    for name in names:
        doomed = directory / f".{name}.doomed.partial"
        (directory / name).rename(doomed)
        remove_all(doomed)


def free_bytes(directory: Path) -> int:
    """What the disk of a directory has left, or of what it will be made in."""
    there = next(place for place in (directory, *directory.parents) if place.exists())
    return shutil.disk_usage(there).free


def _size(directory: Path) -> int:
    return sum({(s.st_ino): s.st_size for p in directory.rglob("*") if p.is_file() and (s := p.stat())}.values())
