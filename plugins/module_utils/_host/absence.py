"""What of a service is on a host, and what takes it away again; private to the collection.

Only what is named goes: a directory that others have put something into stays with that, and packages stay where files
that nobody knows lie in their directories. What is to go is told first, so that check mode shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .packages import Package
from .places import File, remove_all
from .system import Answer, read_text

__all__ = ["Removal", "carry_out", "removals"]

Ask = Callable[[Sequence[str]], Answer]

VERSIONLOCK = Path("etc/dnf/plugins/versionlock.list")
_EMPTY_BLOCK = r"# BEGIN (Managed by Ansible, role gpuhosts\.vllm\.\w+\.)\n# END \1\n"
_FIRST_OF_PEOPLE = 1000  # SYS_UID_MAX and one, as distributions set it in login.defs(5)
_DAY = 86400  # seconds; shadow(5) tells the day of an account in days since 1970
SECONDS = 900  # that a package manager may take, and a service to finish what it is doing
_APT = ("apt-get", "--yes", "--quiet", "--allow-change-held-packages")
_DNF = ("dnf", "--assumeyes", "--quiet", "remove")


@dataclass(frozen=True)
class Removal:
    """One thing that goes."""

    says: str
    command: tuple[str, ...] = ()
    path: Path | None = None
    write: File | None = None
    if_empty: bool = False  # it goes only if all that is in it has gone


def removals(
    root: Path, ask: Ask, given: Mapping[str, Any], packages: Iterable[Package]
) -> tuple[list[Removal], list[str]]:
    """What is to be done, in this order: units, files, packages, directories that are empty then, the account.

    And what stays though it was installed, with the reason.

    :param given: the arguments of the module service_absent.
    :param packages: those of the host.
    """
    units = list(_units(root, ask, given))
    files = [Removal(f"{path} goes", path=path) for path in _places(root, given["files"])]
    reload = [Removal("", command=("systemctl", "daemon-reload"))] if _reads(root, files) else []
    found = [*units, *files, *reload]
    there = [package for package in packages if any(fnmatchcase(package.name, name) for name in given["packages"])]
    foreign = _foreign(root, ask, given, there[0].manager, list(_places(root, given["files"]))) if there else []
    stays = [f"{', '.join(package.key for package in there)}: {path} is of others" for path in foreign[:1]]
    found += [] if foreign else _packages(root, given, there)
    found += [Removal("", path=place, if_empty=True) for place in _places(root, given["emptied"]) if place.is_dir()]
    account, reason = _account(ask, given, root)
    return [*found, *account], [*stays, *reason]


def _units(root: Path, ask: Ask, given: Mapping[str, Any]) -> Iterator[Removal]:
    """Units that run, or would at the next boot."""
    places = _places(root, [given["instances"]] if given["instances"] else [])
    instances = [path.stem for place in places for path in sorted(place.glob("*.yaml"))]
    names = [*given["units"], *(given["template"].replace("@", f"@{name}") for name in instances)]
    for name in names:
        shown = ask(["systemctl", "show", "--property=ActiveState,UnitFileState", name]).output
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if values.get("ActiveState") not in (None, "inactive") or values.get("UnitFileState", "").startswith("enabled"):
            yield Removal(f"{name} stops for good", command=("systemctl", "disable", "--now", name))


def _places(root: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """What is there of these paths; ``*`` stands for any part of a name."""
    for pattern in patterns:
        relative = str(pattern).lstrip("/")
        found = sorted(root.glob(relative)) if "*" in relative else [root / relative]
        yield from (path for path in found if os.path.lexists(path))


def _reads(root: Path, files: Iterable[Removal]) -> bool:
    """Whether systemd has to be told."""
    return any(removal.path and root / "etc/systemd/system" in removal.path.parents for removal in files)


def _packages(root: Path, given: Mapping[str, Any], there: Sequence[Package]) -> Iterator[Removal]:
    """Packages that are installed, and what has held them at their version."""
    if not there:
        return
    keys = [package.key for package in there]
    said = f"packages go: {', '.join(keys)}"
    if there[0].manager == "rpm":
        yield from _unlocked(root, [package.name for package in there])
        yield Removal(said, command=(*_DNF, *keys))
    else:
        yield Removal(said, command=(*_APT, "purge" if given["purge"] else "remove", *keys))


def _foreign(root: Path, ask: Ask, given: Mapping[str, Any], manager: str, going: Sequence[Path]) -> list[Path]:
    """Files in the directories that packages keep for others, which neither a package nor this collection has made."""
    query = ["dpkg", "--search"] if manager == "dpkg" else ["rpm", "--query", "--file"]
    files = [path for place in _places(root, given["others_in"]) for path in sorted(place.rglob("*"))]
    theirs = [path for path in files if path.is_file() and not path.is_symlink() and path not in going]
    return [path for path in theirs if ask([*query, f"/{path.relative_to(root)}"]).code]


def _unlocked(root: Path, names: Iterable[str]) -> Iterator[Removal]:
    """The file of dnf's versionlock without these packages."""
    path = root / VERSIONLOCK
    lines = read_text(path).splitlines()
    pattern = re.compile(f"(?:{'|'.join(map(re.escape, sorted(names)))})-[0-9]")
    kept = [line for line in lines if not pattern.match(line)]
    if kept != lines:
        content = re.sub(_EMPTY_BLOCK, "", "".join(f"{line}\n" for line in kept))
        yield Removal(f"{path} locks them no more", write=File(path, 0o644, content=content))


def _account(ask: Ask, given: Mapping[str, Any], root: Path) -> tuple[list[Removal], list[str]]:
    """The user, or why it stays: with files of its own, another account could get its number, and with that these."""
    user, home = given["user"], given["home"]
    found = ask(["getent", "passwd", user]) if user else Answer(1)
    if found.code:
        return [], []
    if home and (root / str(home).lstrip("/")).exists() and home not in given["files"]:
        return [], [f"the user {user}: {home} is its own"]
    reason = _made_by_others(ask, found.output, user, given["user_since"])
    return (
        ([], [f"the user {user}: {reason}"]) if reason else ([Removal(f"the user {user} goes", ("userdel", user))], [])
    )


def _made_by_others(ask: Ask, entry: str, user: str, since: str) -> str:
    """Why an account is none that a role has made; "" if it is.

    Read from what every account has, so that it is true of hosts that were set up by earlier releases as well: the role
    makes a system account without a password, after the directory of its releases.
    """
    number, shadow = entry.split(":")[2], ask(["getent", "shadow", user]).output.strip().split(":")
    if int(number) >= _FIRST_OF_PEOPLE:
        return f"its number {number} is none of a system account"
    password, changed = shadow[1:3] if len(shadow) > 2 else ("", "")
    if password[:1] not in ("!", "*"):
        return "it has a password, or is not of this host"
    if not since:
        return ""
    born = ask(["stat", "--format=%W", since]).output.strip()
    if not (born.isdigit() and int(born) and changed.isdigit()):
        return f"nothing tells whether it is older than {since}"
    return f"it is older than {since}" if int(changed) < int(born) // _DAY else ""


def carry_out(removal: Removal, ask: Callable[[Sequence[str], float], Answer]) -> str:
    """Do it; what a command says that fails, else ""."""
    if removal.path and removal.if_empty:
        if removal.path.is_dir() and not any(removal.path.iterdir()):
            removal.path.rmdir()
    elif removal.path:
        remove_all(removal.path)
    if removal.write:
        removal.write.write()
    if removal.command:
        done = ask(removal.command, SECONDS)
        if done.code:
            said = (done.errors or done.output).strip() or "it is not there, or takes too long"
            return f"`{' '.join(removal.command)}` fails: {said}"
    return ""
