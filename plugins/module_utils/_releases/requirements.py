"""What a release of vLLM needs of a host, as data; private to the collection.

The numbers are those of the wheel on PyPI: the CUDA that it is built with, hence the oldest driver, its
``Requires-Python``, and the oldest GPU that its kernels are compiled for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .versions import parse_version

__all__ = ["COMPUTE_CAPABILITY", "REQUIREMENTS", "Requirements", "driver_floor", "requirements_of"]

COMPUTE_CAPABILITY = (7, 5)  # (major, minor) of the oldest GPU, for every release below


@dataclass(frozen=True)
class Requirements:
    """What every release from ``since`` on needs: (major, minor, patch) of vLLM, driver branch, (major, minor).

    ``disk_gib`` is the virtual environment with CUDA's libraries, and the wheels while they are unpacked.
    """

    since: tuple[int, int, int]
    driver_branch: int
    python: tuple[int, int]
    disk_gib: float = 12.0


# CUDA 12 runs on any driver from 525 on (minor-version compatibility), CUDA 13 from 580 on.
REQUIREMENTS: tuple[Requirements, ...] = (
    Requirements((0, 0, 0), 525, (3, 9)),
    Requirements((0, 11, 1), 525, (3, 10)),
    Requirements((0, 20, 0), 580, (3, 10)),
    Requirements((0, 32, 0), 580, (3, 11)),
)


def requirements_of(version: str | None) -> Requirements | None:
    """What a version needs; None for what is no version. One that is newer than the table is as its last line."""
    parsed = parse_version(version)
    return None if parsed is None else [line for line in REQUIREMENTS if line.since <= parsed][-1]


def driver_floor(version: str | None) -> int | None:
    """The oldest NVIDIA driver branch that this version's default wheel runs on; None for what is no version."""
    found = requirements_of(version)
    return found.driver_branch if found else None
