"""The driver for hosts that are dressed as Ubuntu: Canonical's, with its kernels, and NVIDIA's by its names since 590.

Canonical builds the modules of its drivers for each of its kernels. Names and relations are those of
https://packages.ubuntu.com/jammy-updates/linux-modules-nvidia-580-server-open-generic-hwe-22.04: the metapackage of the
modules asks for those of the newest kernel and for a driver that is as new, and the kernel's own packages for neither.
The kernel is the one below the container, of whatever flavour it is; one that is newer is there as a package only.

What is in NVIDIA's packages is that of its packages for Debian (nvidia.py).
"""

from __future__ import annotations

import dataclasses
import platform
import re
from typing import Any

from . import nvidia
from .deb import Package

OLD, NEW = "580.159.03", "580.178.04"  # of Canonical's driver
NVIDIAS = ("595.71.05", "595.91.07")
RELEASE = "ubuntu2604"  # of NVIDIA's repository
KERNEL = platform.release()
FLAVOUR = re.sub(r"^[^-]+(-[0-9][^-]*)?-", "", KERNEL)
META = f"{FLAVOUR}-hwe-22.04"
NEXT = f"99.0.0-91-{FLAVOUR}"
BEFORE, AFTER = "99.0.0.90.90", "99.0.0.91.91"  # versions of the metapackages

_MAINTAINER = "Ubuntu Kernel Team <kernel-team@lists.ubuntu.com>"
_MODULES = "linux-modules-nvidia-580-server-open"


def canonicals() -> tuple[Package, ...]:
    """Ubuntu's kernel and driver."""
    return (
        *_kernel(KERNEL, BEFORE),
        _modules(KERNEL, BEFORE, OLD),
        _modules_of_the_newest(KERNEL, BEFORE, OLD),
        *_user_space(OLD),
    )


def canonicals_next() -> tuple[Package, ...]:
    """What Ubuntu has some weeks later: a newer kernel, a newer driver, and its modules for both kernels."""
    return (
        *_kernel(NEXT, AFTER),
        _modules(KERNEL, f"{BEFORE}+1", NEW),
        _modules(NEXT, AFTER, NEW),
        _modules_of_the_newest(NEXT, AFTER, NEW),
        *_user_space(NEW),
    )


def nvidias(version: str) -> tuple[Package, ...]:
    """The packages of one version of NVIDIA's driver for Ubuntu: no name has a branch."""
    there = {package.name: package for package in nvidia.driver(version)}
    library = dataclasses.replace(
        there["libnvidia-ml1"],
        name="libnvidia-compute",
        depends=("python3",),
        files={**there["libcuda1"].files, **there["libnvidia-ml1"].files},
        links={**there["libcuda1"].links, **there["libnvidia-ml1"].links},
        programs=there["nvidia-smi"].programs,
    )
    modules = dataclasses.replace(
        there["nvidia-kernel-open-dkms"],
        name="nvidia-dkms-open",
        depends=("dkms", f"nvidia-kernel-common (>= {version})"),
        conflicts=("nvidia-dkms",),
        replaces=("nvidia-dkms",),
    )
    common = dataclasses.replace(there["nvidia-kernel-support"], name="nvidia-kernel-common")
    same = ("nvidia-modprobe", "nvidia-persistenced", "nvidia-fabricmanager", "libnvidia-nscq", "nvidia-imex")
    return (library, modules, common, *(there[name] for name in same))


def _kernel(kernel: str, version: str) -> list[Package]:
    image = _package(f"linux-image-{kernel}", version)
    return [
        image,
        _package(f"linux-image-{META}", version, depends=(image.name,)),
        _package(f"linux-headers-{META}", version),
        _package(
            f"linux-{META}",
            version,
            depends=(f"linux-image-{META} (= {version})", f"linux-headers-{META} (= {version})"),
        ),
    ]


def _modules(kernel: str, version: str, driver: str) -> Package:
    path = f"/lib/modules/{kernel}/kernel/nvidia-580srv-open/nvidia.ko"
    return _package(
        f"{_MODULES}-{kernel}",
        version,
        depends=(f"linux-image-{kernel}", f"nvidia-kernel-common-580-server (>= {driver})", "kmod"),
        files={path: nvidia.module(driver, "Dual MIT/GPL")},
        scripts={"postinst": f"#!/bin/sh\ndepmod {kernel}\n"},
    )


def _modules_of_the_newest(kernel: str, version: str, driver: str) -> Package:
    depends = (f"{_MODULES}-{kernel} (= {version})", f"nvidia-kernel-common-580-server (>= {driver})")
    return _package(f"{_MODULES}-{META}", version, depends=depends)


def _user_space(driver: str) -> list[Package]:
    there = {package.name: package for package in nvidia.driver(driver)}
    version = f"{driver}-0ubuntu0.22.04.1"
    library = f"libnvidia-compute-580-server (= {version})"

    def package(name: str, **more: Any) -> Package:
        return _package(name, version, **more)

    ml = there["libnvidia-ml1"]
    daemon = there["nvidia-persistenced"]
    return [
        package("libnvidia-compute-580-server", files=ml.files, links=ml.links),
        package("nvidia-kernel-common-580-server", depends=(f"nvidia-firmware-580-server-{driver}",)),
        package(f"nvidia-firmware-580-server-{driver}"),
        package("nvidia-utils-580-server", depends=(library, "python3"), programs=there["nvidia-smi"].programs),
        package(
            "nvidia-compute-utils-580-server",
            depends=(library,),
            programs=daemon.programs,
            files=daemon.files,
        ),
        package(
            "nvidia-headless-no-dkms-580-server-open",
            depends=(library, f"nvidia-kernel-common-580-server (= {version})"),
        ),
    ]


def _package(name: str, version: str, **more: Any) -> Package:
    return Package(name, version, f"{name}, a stand-in", maintainer=_MAINTAINER, **more)
