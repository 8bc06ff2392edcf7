"""Writes signed apt repositories of packages, laid out as the vendors lay out theirs."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from .deb import Package
from .signing import Key


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository, or one suite of a repository.

    Without a suite it is flat: packages and index lie in one directory, and apt asks for the suite ``/``. With one, the
    index is in ``dists/SUITE/COMPONENT`` and the packages in the pool beside it.
    """

    path: str  # below the mirror, as at the vendor's
    origin: str
    packages: tuple[Package, ...]
    label: str = ""  # "": as the origin
    directory: str = ""  # of a flat one, below path
    suite: str = ""
    component: str = ""
    architecture: str = "amd64"
    extra: Mapping[str, bytes] = dataclasses.field(default_factory=dict)  # other files below path: name -> content

    def write(self, root: Path, key: Key) -> None:
        """Write packages, index and signed Release below a directory. Other suites in the same place stay."""
        base = root / self.path
        for name, content in self.extra.items():
            _write(base / name, content)
        base /= self.directory
        pool = f"dists/{self.suite}/pool/{self.component}/{self.architecture}" if self.suite else "."
        index = f"{self.component}/binary-{self.architecture}/Packages" if self.suite else "Packages"
        top = base / "dists" / self.suite if self.suite else base
        paragraphs = []
        for package in self.packages:
            content = package.build()
            _write(base / pool / package.file_name, content)
            paragraphs.append(
                f"{package.control}Filename: {pool}/{package.file_name}\nSize: {len(content)}\n"
                f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
            )
        packages = "\n".join(paragraphs).encode()
        indexes = {index: packages, f"{index}.gz": gzip.compress(packages, mtime=0)}
        for name, content in indexes.items():
            _write(top / name, content)
        release = self._release(indexes)
        _write(top / "Release", release)
        _write(top / "Release.gpg", key.sign(release, "--armor", "--detach-sign"))
        _write(top / "InRelease", key.sign(release, "--clear-sign"))

    def _release(self, indexes: Mapping[str, bytes]) -> bytes:
        date = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
        fields = {
            "Origin": self.origin,
            "Label": self.label or self.origin,
            "Suite": self.suite,
            "Codename": self.suite,
            "Components": self.component,
            "Architectures": self.architecture,
            "Date": date,
        }
        lines = [f"{name}: {value}" for name, value in fields.items() if value]
        lines += [
            "SHA256:",
            *(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}" for name, content in indexes.items()),
        ]
        return "".join(f"{line}\n" for line in lines).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
