"""Kernels and drivers of Ubuntu that belong together: what of the two is held, and moves, as one; pure, private.

Canonical builds the modules of its drivers for each of its kernels. Packages of the modules ask for a kernel's and a
driver's, and the kernel's for neither: a hold of some of them only brings a kernel without a module, or a library that
is newer than the module in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from .packages import Package

__all__ = ["flavour_of", "held_together", "meta_of", "moves_along"]

_FLAVOUR = re.compile(r"^[^-]+(-[0-9][^-]*)?-")
# What follows the flavour in the name of a metapackage: the HWE kernels, those of clouds for a release, one series.
_TRACK = r"((?:-hwe-|-lts-)\d\d\.\d\d(?:-edge)?|-\d+\.\d+)?"
_BRANCH = re.compile(r"-(\d{3})(?=-|$)")
_VERSION = re.compile(r"-\d{3}\.\d{2,3}(?:\.\d{2})?$")


def flavour_of(kernel: str) -> str:
    """The flavour in the release of a kernel: generic in 6.8.0-90-generic, cloud-amd64 in 6.1.0-41-cloud-amd64."""
    return _FLAVOUR.sub("", kernel)


def meta_of(kernel: str, packages: Iterable[Package]) -> str:
    """What the names of the kernel's metapackages end in: that of the newest kernel, as it is the one that boots next.

    A kernel of another track has the same flavour: 6.17.0-40-generic comes by linux-image-generic-hwe-24.04. Those of
    linux-image-virtual are of the flavour generic as well.
    """
    flavour = flavour_of(kernel)
    name = re.compile(rf"linux-image-(?:{re.escape(flavour)}|virtual){_TRACK}")
    tracks = [(_numbers(one.version), match[1] or "") for one in packages if (match := name.fullmatch(one.name))]
    return flavour + max(tracks, default=([], ""))[1]


def held_together(packages: Iterable[Package], globs: Sequence[str]) -> tuple[str, ...]:
    """Metapackages of the kernel that are there, by the globs of a table."""
    return tuple(one.name for one in packages if any(fnmatchcase(one.name, glob) for glob in globs))


def moves_along(name: str, branch: str) -> bool:
    """Whether a package of the driver moves to another version under its name.

    One whose name has another branch is replaced, and one whose name has a version comes with what asks for it.
    """
    return not _VERSION.search(name) and all(one == branch for one in _BRANCH.findall(name.partition(":")[0]))


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
