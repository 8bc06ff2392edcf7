"""Files and directories as they shall be: content, mode and owners; private to the collection."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Directory",
    "File",
    "Place",
    "closed_to",
    "diff_of",
    "gid",
    "is_directory",
    "may_write",
    "newest",
    "remove_all",
    "switch",
    "uid",
    "unchecked",
    "unmounted",
]


def uid(user: str) -> int:
    """The number of a user; -1 where there is none, as in check mode on a fresh host."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return -1


def gid(group: str) -> int:
    """The number of a group; -1 where there is none, as in check mode on a fresh host."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return -1


def may_write(user: str, path: Path) -> bool:
    """Whether a user may write to a directory, with its groups, access lists and read-only file systems in mind."""
    return _may(user, path, os.W_OK | os.X_OK)


def is_directory(path: Path) -> bool:
    """Whether there is a directory; what is closed to root, as on a server that squashes it, is its user's to know."""
    try:
        return path.is_dir()
    except PermissionError:
        return True


def closed_to(user: str, path: Path) -> Path | None:
    """The first directory on the way to a path that a user may not pass through."""
    there = (place for place in reversed(path.parents) if is_directory(place))
    return next((place for place in there if not _may(user, place, os.X_OK)), None)


def _may(user: str, path: Path, mode: int) -> bool:
    if os.geteuid() != 0:  # nobody else can become another user
        return os.access(path, mode)
    if uid(user) == -1:  # it is not known yet
        return True
    account, groups = pwd.getpwnam(user), os.getgroups()
    os.setgroups(os.getgrouplist(user, account.pw_gid))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        return os.access(path, mode, effective_ids=True)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def unmounted(path: Path, table: Path = Path("/etc/fstab"), mounts: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """The first place on the way to a path, or itself, where a table wants something mounted and nothing is."""
    wanted = [Path(_plain(fields[1])) for fields in _fields(table) if len(fields) > 1 and fields[1].startswith("/")]
    # The kernel's list: another directory of the same disk that is mounted at a place looks like no mount at all.
    there = {_plain(fields[4]) for fields in _fields(mounts)}
    missing = [place for place in wanted if place in (path, *path.parents) and str(place.resolve()) not in there]
    return min(missing, default=None, key=lambda place: len(place.parts))


def _fields(table: Path) -> list[list[str]]:
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines() if table.exists() else []
    return [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _plain(field: str) -> str:
    """A field without the numbers that stand for blanks in it."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def make_directories(path: Path) -> None:
    """Make what is missing, for all to pass through, whatever root's umask is."""
    for directory in reversed([path, *path.parents]):
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(0o755)


def remove_all(path: Path) -> None:
    """Remove what is there, if anything is: a file, a link, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def newest(paths: Iterable[Path]) -> float:
    """When the youngest of the paths was written, a link taken for itself; 0: there is none."""
    return max((path.lstat().st_mtime for path in paths if os.path.lexists(path)), default=0)


def switch(link: Path, release: str) -> None:
    """Let the link point to the release, in one rename."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(release)
    new.replace(link)


def diff_of(path: Path, before: str, after: str) -> dict[str, str]:
    """One entry of the diff that Ansible shows."""
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def unchecked(_: Path) -> None:
    """The check of a file that nothing has to be asked about."""


@dataclass(frozen=True)
class Place:
    """Something in the file system as it shall be, as far as mode and owners go."""

    path: Path
    mode: int
    user: str = "root"
    group: str = "root"

    def is_owned(self) -> bool:
        """Whether mode and owners are what they shall be."""
        status = self.path.stat()
        expected = (self.mode, uid(self.user), gid(self.group))
        return (status.st_mode & 0o7777, status.st_uid, status.st_gid) == expected

    def own(self, path: Path) -> None:
        """Set mode and owners; the age of a file stays."""
        os.chown(path, uid(self.user), gid(self.group))
        path.chmod(self.mode)


@dataclass(frozen=True)
class Directory(Place):
    """A directory as it shall be."""

    def differs(self) -> bool:
        """Whether it is not there, or belongs to somebody else."""
        return not (self.path.is_dir() and self.is_owned())

    def make(self) -> None:
        """Let it be there as it shall be."""
        make_directories(self.path)
        self.own(self.path)


@dataclass(frozen=True)
class File(Place):
    """A file as it shall be."""

    content: str = ""

    def before(self) -> str | None:
        """What it says so far; None: it is not there."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def write(self, check: Callable[[Path], None] = unchecked) -> None:
        """Put it in the place of the old one, in one rename, unless the check of the new one ends the module."""
        new = self.path.with_name(f".{self.path.name}.new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(self.content, encoding="utf-8")
        self.own(new)
        check(new)
        new.replace(self.path)
