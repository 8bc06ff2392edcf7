"""What of a host is not as it is wanted: files, packages and services; private to the collection.

Roles ask this before they ask apt, dnf or systemd for anything, so that a run with nothing to do is short. Reading is
cheap and needs no network; what is compared is what the role itself would write.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .packages import Package
from .system import Run, read_text

__all__ = [
    "Service",
    "differing_directories",
    "differing_files",
    "differing_packages",
    "differing_services",
    "differing_settings",
    "read_services",
]

_MODE, _DIRECTORY_MODE = 0o644, 0o755
# In the place of a content; without digits, or with the address of a file of checksums, the file only has to be there.
_CHECKSUM = re.compile(r"(sha(?:1|224|256|384|512)):(\S*)")
_TRUTHS = {"yes": "1", "true": "1", "no": "0", "false": "0"}
# What systemctl is-enabled says yes to.
_STARTING = ("enabled", "enabled-runtime", "static", "indirect", "alias", "generated")


@dataclass(frozen=True)
class Service:
    """A unit as systemd knows it."""

    enabled: bool = False
    active: bool = False


def differing_files(root: Path, files: Mapping[str, str]) -> list[str]:
    """Sentences about files of mode 0644 that are not as wanted; content by path, or a checksum in its place."""
    found: list[str] = []
    for path, content in files.items():
        file = root / path.lstrip("/")
        try:
            present, mode = file.read_bytes(), stat.S_IMODE(file.stat().st_mode)
        except OSError:
            found.append(f"{path} is not there")
            continue
        if not _has(present, content):
            found.append(f"{path} is another one")
        elif mode != _MODE:
            found.append(f"{path} has mode {mode:04o}, not {_MODE:04o}")
    return found


def differing_directories(root: Path, paths: Iterable[str]) -> list[str]:
    """Sentences about directories of mode 0755 that are not as wanted."""
    found = []
    for path in paths:
        directory = root / path.lstrip("/")
        if not directory.is_dir():
            found.append(f"{path} is not there")
        elif (mode := stat.S_IMODE(directory.stat().st_mode)) != _DIRECTORY_MODE:
            found.append(f"{path} has mode {mode:04o}, not {_DIRECTORY_MODE:04o}")
    return found


def differing_settings(root: Path, path: str, section: str, wanted: Mapping[str, str]) -> list[str]:
    """A sentence about an INI file that has not these values in a section; yes and true are 1, no and false 0."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(root / path.lstrip("/")))
    except configparser.Error:
        return [f"{path} is another one"]
    same = parser.has_section(section) and all(
        _TRUTHS.get(parser.get(section, name, fallback="").lower(), parser.get(section, name, fallback="")) == value
        for name, value in wanted.items()
    )
    return [] if same else [f"{path} is another one"]


def differing_packages(packages: Iterable[Package], wanted: Mapping[str, str], *, held: bool = True) -> list[str]:
    """Sentences about packages; versions by name, "" for any version. With ``held`` those not held count as well."""
    present = {one.name: one for one in packages if not one.foreign}
    found = []
    for name, version in wanted.items():
        package = present.get(name)
        if package is None:
            found.append(f"{name} is not installed")
        elif not package.configured:
            found.append(f"{name} is installed half-way")
        elif version and not _is(package, version):
            found.append(f"{name} is {package.version}, not {version}")
        elif held and not package.held:
            found.append(f"{name} is not held")
    return found


def differing_services(services: Mapping[str, Service], wanted: Iterable[str], *, active: bool = True) -> list[str]:
    """Sentences about services that do not start at boot, or with ``active`` do not run now."""
    found = []
    for name in wanted:
        service = services.get(name, Service())
        if not service.enabled:
            found.append(f"{name} does not start at boot")
        elif active and not service.active:
            found.append(f"{name} does not run")
    return found


def read_services(names: Iterable[str], run: Run) -> dict[str, Service]:
    """Services by name, from one call of systemctl; those that systemd does not know are neither enabled nor active."""
    found = {}
    names = list(names)
    if names:
        properties = "--property=Id,UnitFileState,ActiveState"
        for record in run(["systemctl", "show", properties, *names]).split("\n\n"):
            values = dict(re.findall(r"(?m)^(\w+)=(.*)$", record))
            if "Id" in values:
                service = Service(values.get("UnitFileState") in _STARTING, values.get("ActiveState") == "active")
                found[values["Id"]] = service
                found[values["Id"].rpartition(".service")[0]] = service
    return found


def _is(package: Package, version: str) -> bool:
    """Whether a package has this version, in which * is any text; that of an RPM is wanted without its epoch."""
    known = (package.version, package.version.partition(":")[2] if package.manager == "rpm" else "")
    return any(fnmatchcase(one, version) for one in known)


def _has(present: bytes, wanted: str) -> bool:
    """Whether what is there is the wanted content, or has the checksum (``ALGORITHM:DIGITS``) in its place."""
    checksum = _CHECKSUM.fullmatch(wanted)
    if not checksum:
        return present == wanted.encode()
    algorithm, digits = checksum.groups()
    return not digits or "/" in digits or hashlib.new(algorithm, present).hexdigest() == digits.lower()
