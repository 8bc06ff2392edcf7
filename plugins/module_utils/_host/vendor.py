"""Packages of a vendor at exact versions, and the repository that has them; private to the collection.

A role describes them in its table of platforms. What of it is not on the host is told step by step, from files and the
package manager's own records: neither apt nor dnf nor a network is asked. The role common carries these steps out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .openpgp import holds
from .packages import Package
from .platform import filled
from .system import Run
from .wanted import differing_files, differing_packages, differing_settings

__all__ = ["STEPS", "Vendor", "differing_vendor", "vendor_of"]

STEPS = ("repository", "packages", "locks")

_LOCKING = "python3-dnf-plugin-versionlock"
_SETTINGS = ("baseurl", "gpgcheck", "repo_gpgcheck", "gpgkey", "module_hotfixes", "priority")  # of a repository of dnf


@dataclass(frozen=True)
class Vendor:
    """What a role wants of a package manager."""

    manager: str  # apt or dnf
    packages: Mapping[str, str]  # versions by name, as the manager writes them, with * for any text; "" for any version
    key: Mapping[str, str] = field(
        default_factory=dict
    )  # url, with path and checksum or fingerprint; rpm needs no path
    files: Mapping[str, str] = field(default_factory=dict)  # apt's sources and preferences: content by path
    repository: Mapping[str, str] = field(default_factory=dict)  # dnf's: name, file, description, baseurl, ...

    @property
    def pins(self) -> dict[str, str]:
        """Packages that are kept at their version."""
        return {name: version for name, version in self.packages.items() if version}

    @property
    def wanted(self) -> list[str]:
        """What to tell the package manager."""
        between = {"apt": "=", "dnf": "-"}[self.manager]
        return [f"{name}{between if version else ''}{version}" for name, version in self.packages.items()]

    def and_any_of(self, names: Iterable[str]) -> Vendor:
        """The same with some packages more, in any version."""
        return replace(self, packages={**self.packages, **dict.fromkeys(names, "")})

    def to_dict(self) -> dict[str, Any]:
        """The record as the role common takes it, but for what is to be done."""
        return {**asdict(self), "pins": self.pins, "wanted": self.wanted}

    def todo(self, packages: Sequence[Package], root: Path, run: Run) -> dict[str, bool]:
        """Which steps of the role common are to be done."""
        return {step: bool(reasons) for step, reasons in differing_vendor(self, packages, root, run).items()}


def vendor_of(platform: Mapping[str, Any], table: Mapping[str, Any], wishes: Mapping[str, Any]) -> Vendor:
    """The record of a table, filled in with the texts of its platform and of the role's variables."""
    texts = {name: text for source in (platform, wishes) for name, text in source.items() if isinstance(text, str)}
    return Vendor(manager=platform["manager"], **filled(table, texts))


def differing_vendor(vendor: Vendor, packages: Sequence[Package], root: Path, run: Run) -> dict[str, list[str]]:
    """What of it is not on the host, by step."""
    wanted = dict(vendor.packages)
    if vendor.manager == "dnf" and vendor.pins:
        wanted[_LOCKING] = ""
    held = {one.name: one.held for one in packages if not one.foreign}
    return {
        "repository": _differing_repository(vendor, root, run),
        "packages": differing_packages(packages, wanted, held=False),
        "locks": [f"{name} is not held" for name in vendor.pins if not held.get(name, True)],
    }


def _differing_repository(vendor: Vendor, root: Path, run: Run) -> list[str]:
    found = _differing_key(vendor.key, root, run) + differing_files(root, vendor.files)
    if vendor.repository:
        path = f"/etc/yum.repos.d/{vendor.repository['file']}.repo"
        settings = {name: vendor.repository[name] for name in _SETTINGS if name in vendor.repository}
        found += differing_settings(root, path, vendor.repository["name"], settings)
    return found


def _differing_key(key: Mapping[str, str], root: Path, run: Run) -> list[str]:
    """The key is a file with a checksum or fingerprint, or one of those that rpm knows by the end of the latter."""
    if "checksum" in key:
        return differing_files(root, {key["path"]: key["checksum"]})
    if "path" in key:
        there = root / key["path"].lstrip("/")
        held = there.is_file() and holds(there.read_bytes(), key["fingerprint"])
        return [] if held else [f"{key['path']} is not the key {key['fingerprint']}"]
    if "fingerprint" not in key:
        return []
    query = ["rpm", "--root", str(root), "--query", "gpg-pubkey", "--queryformat", "%{VERSION}\\n"]
    fingerprint = key["fingerprint"].replace(" ", "").lower()
    known = any(fingerprint.endswith(one.lower()) for one in run(query).split())
    return [] if known else [f"rpm does not know the key {key['fingerprint']}"]
