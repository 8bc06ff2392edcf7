"""What the engines of a host were started from when all of them last answered; private to the collection.

One file holds it, with the content of every other one, so that it changes in one rename: going back needs nothing but
the releases, images and models, which stay where they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._host.places import File, make_directories, switch

__all__ = ["holds", "is_good", "keep", "missing", "read", "restore"]

_ASKED = ("id", "model", "task", "endpoint", "adapters", "engine_args")  # of an instance: by which it is asked
_MODE = 0o600  # secrets are among it


def snapshot(patterns: Iterable[str]) -> list[dict[str, Any]]:
    """The files and links that the patterns name, by path."""
    return [_entry(path) for path in _there(patterns)]


def _there(patterns: Iterable[str]) -> list[Path]:
    root = Path("/")
    return sorted({path for pattern in patterns for path in root.glob(pattern.lstrip("/"))})


def _entry(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        return {"path": str(path), "target": str(path.readlink())}
    status = path.stat()
    owners = {"mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid}
    return {"path": str(path), "content": path.read_text(encoding="utf-8", errors="surrogateescape"), **owners}


def read(file: Path) -> dict[str, Any] | None:
    """What was kept; None: nothing, or something that cannot be read."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and kept.get("version") == 1 else None


def asked(instances: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By what the instances are asked for an answer."""
    return [{name: instance[name] for name in _ASKED if name in instance} for instance in instances]


def holds(kept: Mapping[str, Any] | None, patterns: Iterable[str], instances: Iterable[Mapping[str, Any]]) -> bool:
    """Whether what was kept is what there is now."""
    return kept is not None and (kept["files"], kept["instances"]) == (snapshot(patterns), asked(instances))


def is_good(kept: Mapping[str, Any] | None, given: Mapping[str, Any]) -> bool:
    """Whether what there is now was kept, and nobody has to be told of another wish that failed.

    :param given: arguments of the module engine_config; where nothing is kept, all is well.
    """
    good = given["good"]
    return not good or (holds(kept, good["paths"], given["instances"]) and not Path(good["mark"]).exists())


def keep(
    file: Path, patterns: Sequence[str], instances: Sequence[Mapping[str, Any]], seconds: Mapping[str, float]
) -> None:
    """Keep what there is now, in one rename.

    :param seconds: that instances took to start, where they did; of the others what was known stays.
    """
    before = (read(file) or {}).get("seconds", {})
    known = {one["id"]: seconds.get(one["id"], before.get(one["id"])) for one in instances}
    took = {name: value for name, value in known.items() if value is not None}
    kept = {"version": 1, "instances": asked(instances), "seconds": took, "files": snapshot(patterns)}
    make_directories(file.parent)
    File(file, _MODE, content=json.dumps(kept, indent=1) + "\n").write()


def missing(kept: Mapping[str, Any]) -> list[str]:
    """Places that links of it lead to and that are not there any more, such as a release."""
    return [entry["target"] for entry in kept["files"] if "target" in entry and not Path(entry["target"]).exists()]


def restore(kept: Mapping[str, Any], patterns: Iterable[str]) -> Iterator[str]:
    """Let everything be as it was; gives the paths that differed."""
    files = {entry["path"]: entry for entry in kept["files"]}
    for path in _there(patterns):
        if str(path) not in files:
            path.unlink()
            yield str(path)
    for name, entry in files.items():
        path = Path(name)
        if os.path.lexists(path) and _entry(path) == entry:
            continue
        make_directories(path.parent)
        if "target" in entry:
            switch(path, entry["target"])
        else:
            _write(path, entry)
        yield name


def _write(path: Path, entry: Mapping[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=_MODE)
    new.write_text(entry["content"], encoding="utf-8", errors="surrogateescape")
    os.chown(new, entry["uid"], entry["gid"])
    new.chmod(entry["mode"])
    new.replace(path)
