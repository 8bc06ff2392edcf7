"""Writes binary packages in Debian's format (deb(5)) from data; the same data makes the same bytes on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_MAGIC = b"!<arch>\n"
_DIRECTORY, _PROGRAM, _DATA, _LINK = 0o755, 0o755, 0o644, 0o777


class Stored(Mapping[str, bytes]):
    """Large files of a package (absolute path -> content), read from this machine when they are asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def __getitem__(self, path: str) -> bytes:
        return self._files[path].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        """By size and time of each file, so that a package made from others reads differently."""
        status = {path: file.stat() for path, file in self._files.items()}
        return repr({path: (found.st_size, found.st_mtime_ns) for path, found in status.items()})


@dataclasses.dataclass(frozen=True)
class Package:
    """A binary package. Relations are written as in a control file, for instance ``("libc6 (>= 2.36)", "a | b")``."""

    name: str
    version: str
    summary: str
    architecture: str = "amd64"
    maintainer: str = "gpuhosts lab <lab@example.com>"
    depends: tuple[str, ...] = ()
    pre_depends: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)  # absolute path -> content
    programs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)  # the same, executable
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)  # absolute path -> target of the symbolic link
    scripts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # preinst, postinst, prerm, postrm

    @property
    def file_name(self) -> str:
        """As archives name it: without the epoch of the version."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.architecture}.deb"

    @property
    def control(self) -> str:
        """Its paragraph in a control file, and, with size and hashes added, in an index."""
        size = sum(map(len, [*self.files.values(), *self.programs.values()]))
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": self.maintainer,
            "Installed-Size": str(-(-size // 1024)),  # KiB, rounded up
            "Pre-Depends": ", ".join(self.pre_depends),
            "Depends": ", ".join(self.depends),
            "Recommends": ", ".join(self.recommends),
            "Provides": ", ".join(self.provides),
            "Conflicts": ", ".join(self.conflicts),
            "Breaks": ", ".join(self.breaks),
            "Replaces": ", ".join(self.replaces),
            "Section": "misc",
            "Priority": "optional",
            "Description": self.summary,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)

    def build(self) -> bytes:
        """The .deb file."""
        files = {path: (content, _DATA) for path, content in self.files.items()}
        files |= {path: (content, _PROGRAM) for path, content in self.programs.items()}
        sums = "".join(
            f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {path[1:]}\n"
            for path, (content, _) in sorted(files.items())
        )
        control = {"/control": (self.control.encode(), _DATA), "/md5sums": (sums.encode(), _DATA)}
        control |= {f"/{name}": (text.encode(), _PROGRAM) for name, text in self.scripts.items()}
        if configuration := [f"{path}\n" for path in sorted(files) if path.startswith("/etc/")]:
            control["/conffiles"] = ("".join(configuration).encode(), _DATA)
        members = {
            "debian-binary": b"2.0\n",
            "control.tar": _tar(control, {}),
            "data.tar": _tar(files, self.links),
        }
        return _MAGIC + b"".join(_member(name, content) for name, content in members.items())


def _member(name: str, content: bytes) -> bytes:
    """A member of an ar archive, owned by root and as old as the epoch."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


def _tar(files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]) -> bytes:
    """A tar archive of files (path -> content and mode), symbolic links and their directories, all root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def add(path: str, kind: bytes, mode: int, content: bytes = b"", target: str = "") -> None:
            member = tarfile.TarInfo(f".{path}")
            member.type, member.mode, member.size, member.linkname = kind, mode, len(content), target
            member.uname = member.gname = "root"
            archive.addfile(member, io.BytesIO(content))

        for directory in _directories([*files, *links]):
            add(directory, tarfile.DIRTYPE, _DIRECTORY)
        for path, (content, mode) in sorted(files.items()):
            add(path, tarfile.REGTYPE, mode, content)
        for path, target in sorted(links.items()):
            add(path, tarfile.SYMTYPE, _LINK, target=target)
    return buffer.getvalue()


def _directories(paths: Iterable[str]) -> list[str]:
    """Every directory above the paths, parents first."""
    found = {"/"}
    for path in paths:
        while (path := posixpath.dirname(path)) != "/":
            found.add(path)
    return sorted(found)
