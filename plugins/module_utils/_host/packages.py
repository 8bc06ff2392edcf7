"""Packages of a host, as dpkg's status file and the RPM database know them; private to the collection.

Nothing here asks apt, dnf or a network: reading takes some hundredths of a second, so it can be done in every run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .system import Run, read_text

__all__ = ["Package", "read_packages"]

_VERSIONLOCK = "etc/dnf/plugins/versionlock.list"
_RPM_DATABASES = ("var/lib/rpm", "usr/lib/sysimage/rpm")
_RPM_FORM = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{VENDOR}\\n"


@dataclass(frozen=True)
class Package:
    """An installed package, or one that the package manager has not finished."""

    name: str
    version: str  # as the package manager has it; of an RPM with its epoch and release
    architecture: str = ""
    maintainer: str = ""  # of an RPM its vendor
    held: bool = False  # apt-mark hold, dnf versionlock
    configured: bool = True  # False: dpkg stopped half-way through it
    manager: str = "dpkg"  # dpkg or rpm
    foreign: bool = False  # of another architecture than the host's: apt knows it as NAME:ARCHITECTURE

    @property
    def key(self) -> str:
        """What a command takes as this package and no other one."""
        return f"{self.name}:{self.architecture}" if self.foreign else self.name


def read_packages(root: Path, run: Run, words: Sequence[str] = ()) -> list[Package]:
    """All packages; with words those of dpkg in whose records one of them stands (most of the file is passed over)."""
    return list(_read_dpkg(root, words)) or list(_read_rpm(root, run))


def _read_dpkg(root: Path, words: Sequence[str]) -> Iterable[Package]:
    status = read_text(root / "var/lib/dpkg/status")
    native = re.search(r"(?m)^Package: dpkg\n(?:.+\n)*?Architecture: (.+)$", status)
    known = (native[1] if native else "amd64", "all", "")
    for paragraph in status.split("\n\n"):
        if words and not any(word in paragraph for word in words):
            continue
        fields: Mapping[str, str] = dict(re.findall(r"(?m)^([\w-]+): (.*)$", paragraph))
        want, _, state = fields["Status"].split(" ") if fields.get("Status") else ("", "", "not-installed")
        if state in ("not-installed", "config-files"):
            continue
        architecture = fields.get("Architecture", "")
        yield Package(
            name=fields.get("Package", ""),
            version=fields.get("Version", ""),
            architecture=architecture,
            maintainer=fields.get("Maintainer", ""),
            held=want == "hold",
            configured=state == "installed",
            foreign=architecture not in known,
        )


def _read_rpm(root: Path, run: Run) -> Iterable[Package]:
    """Packages in the RPM database; held are those that dnf's versionlock names."""
    if not any((root / path).is_dir() for path in _RPM_DATABASES):
        return
    locks = [line.strip() for line in read_text(root / _VERSIONLOCK).splitlines()]
    locks = [line for line in locks if line and not line.startswith("#")]
    for line in run(["rpm", "--root", str(root), "--query", "--all", "--queryformat", _RPM_FORM]).splitlines():
        name, epoch, version, architecture, vendor = line.split("\t")
        spellings = (f"{name}-{version}.{architecture}", f"{name}-{epoch}:{version}.{architecture}")
        held = any(fnmatchcase(spelling, lock) for spelling in spellings for lock in locks)
        yield Package(name, f"{epoch}:{version}", architecture, vendor, held, manager="rpm")
