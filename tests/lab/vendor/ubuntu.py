"""What Ubuntu's archive has and Debian's has not, for hosts of Debian that are dressed as Ubuntu (molecule/ubuntu)."""

from __future__ import annotations

from . import nvidia, ubuntu_driver
from .apt import Repository
from .deb import Package
from .signing import Key

BASE = "ubuntu"  # below the mirror; Ubuntu's is archive.ubuntu.com
PACKAGES: dict[str, tuple[Package, ...]] = {"jammy": (), "resolute": ()}  # by release: 22.04 on Debian 12, 26.04 on 13


def repositories(key: Key) -> list[Repository]:
    """One suite for each release, as at Ubuntu, two with kernels and drivers, and NVIDIA's repository for Ubuntu."""
    drivers = [package for version in ubuntu_driver.NVIDIAS for package in ubuntu_driver.nvidias(version)]
    restricted = {"jammy-updates": ubuntu_driver.canonicals(), "jammy-proposed": ubuntu_driver.canonicals_next()}
    return [
        *(
            Repository(path=BASE, origin="Ubuntu", suite=suite, component="main", packages=packages)
            for suite, packages in PACKAGES.items()
        ),
        *(
            Repository(path=BASE, origin="Ubuntu", suite=suite, component="restricted", packages=packages)
            for suite, packages in restricted.items()
        ),
        nvidia.repository(ubuntu_driver.RELEASE, ubuntu_driver.NVIDIAS, drivers, key),
    ]
