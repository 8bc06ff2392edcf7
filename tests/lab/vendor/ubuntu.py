"""What Ubuntu's archive has and Debian's has not, for hosts of Debian that are dressed as Ubuntu (molecule/ubuntu)."""

from __future__ import annotations

from .apt import Repository
from .deb import Package

BASE = "ubuntu"  # below the mirror; Ubuntu's is archive.ubuntu.com
PACKAGES: dict[str, tuple[Package, ...]] = {"jammy": (), "resolute": ()}  # by release: 22.04 on Debian 12, 26.04 on 13


def repositories() -> list[Repository]:
    """One suite for each release, as at Ubuntu."""
    return [
        Repository(path=BASE, origin="Ubuntu", suite=suite, component="main", packages=packages)
        for suite, packages in PACKAGES.items()
    ]
