"""NVIDIA's CUDA repositories for Debian: the driver's packages, small, with the real names and dependencies.

Names and relations are those of https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/ and of the packages
themselves: the metapackages ask for "this version or newer", so that without a pin apt takes the newest branch, and
nvidia-imex asks for nvidia-modprobe of any version. The pinning package here leaves the companions out (Fabric Manager,
NSCQ, IMEX), so a role that relies on it alone gets those of the newest branch.

Upgrades are observable: libnvidia-ml.so.VERSION is tests/fake_nvml; the kernel module goes through the real DKMS, whose
"compiler" copies a finished file (and fails for versions that /etc/gpuhosts-lab/dkms-fails lists), and carries its
version for modinfo; `modprobe nvidia` "loads" it by mounting what the real one would show in /sys/module and
/proc/driver, and refuses where the PCI bus has nothing of NVIDIA's, as the real one does. A reboot of the container
forgets that, and nvidia-persistenced loads what is installed by then.

One package is not NVIDIA's: linux-headers-stand-in. DKMS builds for the running kernel if it finds its headers, and of
the kernel below a container the distribution has none.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import nvml

from . import dcgm
from .apt import Repository
from .deb import Package
from .signing import Key

VERSIONS = ("580.159.03", "580.178.04", "595.91.07")  # two of the branch that is pinned, one of the next
BASE = "nvidia/cuda/repos"  # below the mirror; NVIDIA's is developer.download.nvidia.com/compute/cuda/repos
RELEASES = ("debian12", "debian13")
WITH_DCGM = ("debian12",)  # of these

_FILES = Path(__file__).with_name("files") / "nvidia"
_MAINTAINER = "cudatools <cudatools@nvidia.com>"
_LIBRARIES = "/usr/lib/x86_64-linux-gnu"
_LICENSES = {"nvidia-kernel-open-dkms": "Dual MIT/GPL", "nvidia-kernel-dkms": "NVIDIA"}
_PINNED = (
    "cuda-drivers libcuda1 libnvidia-ml1 nvidia-driver nvidia-driver-cuda nvidia-driver-libs nvidia-kernel-dkms "
    "nvidia-kernel-open-dkms nvidia-kernel-support nvidia-modprobe nvidia-open nvidia-persistenced nvidia-smi"
)


def repositories(key: Key) -> list[Repository]:
    """One flat repository for each release of Debian, as at NVIDIA."""
    drivers = tuple(package for version in VERSIONS for package in driver(version))
    return [repository(release, VERSIONS, drivers, key) for release in RELEASES]


def repository(release: str, versions: Sequence[str], drivers: Sequence[Package], key: Key) -> Repository:
    """That of one release, with drivers of these versions."""
    pins = tuple(_pinning(branch) for branch in sorted({version.partition(".")[0] for version in versions}))
    keyring = _keyring(release, key)
    checksum = hashlib.sha256(keyring.build()).hexdigest()
    return Repository(
        path=f"{BASE}/{release}/x86_64",
        origin="NVIDIA",
        label="NVIDIA CUDA",
        packages=(
            keyring,
            *pins,
            *drivers,
            _subnet_manager(),
            _headers(),
            *(dcgm.packages() if release in WITH_DCGM else ()),
        ),
        extra={f"{keyring.file_name}.sha256": f"{checksum}  {keyring.file_name}\n".encode()},
    )


def driver(version: str) -> list[Package]:
    """The packages of one driver version."""
    same, newer = f"(= {version}-1)", f"(>= {version})"

    def package(name: str, summary: str, **more: Any) -> Package:
        return Package(name, f"{version}-1", summary, maintainer=_MAINTAINER, **more)

    def service(name: str, program: str, summary: str, *, started: bool = False, **more: Any) -> Package:
        """A package whose daemon insists on a loaded module of its own version."""
        unit = _text("daemon.service").format(name=name, program=program)
        return package(
            name,
            summary,
            programs={f"/usr/bin/{program}": _text(program).replace("@VERSION@", version).encode()},
            files={f"/usr/lib/systemd/system/{name}.service": unit.encode()},
            scripts={
                "postinst": _text("daemon.postinst").format(name=name, started="yes" if started else ""),
                "prerm": _text("daemon.prerm").format(name=name),
            },
            **more,
        )

    def kernel_module(name: str, other: str) -> Package:
        source = f"/usr/src/nvidia-{version}"
        return package(
            name,
            f"NVIDIA's kernel module as source for DKMS, {_LICENSES[name]}",
            depends=("dkms", f"nvidia-kernel-support {newer}"),
            provides=(f"nvidia-kernel-{version}",),
            conflicts=(other,),
            replaces=(other,),
            files={
                f"{source}/dkms.conf": _text("dkms.conf").format(version=version).encode(),
                f"{source}/build": _text("build").encode(),
                f"{source}/nvidia.built": module(version, _LICENSES[name]),
            },
            scripts={
                "postinst": _text("dkms.postinst").format(version=version),
                "prerm": _text("dkms.prerm").format(version=version),
            },
        )

    def metapackage(name: str, modules: str) -> Package:
        depends = tuple(f"{one} {newer}" for one in ("nvidia-driver", "nvidia-driver-cuda", modules))
        return package(name, "NVIDIA's driver, all of it", depends=depends)

    def library(package_name: str, name: str, content: bytes) -> Package:
        return package(
            package_name,
            f"{name} of NVIDIA's driver",
            files={f"{_LIBRARIES}/{name}.so.{version}": content},
            links={f"{_LIBRARIES}/{name}.so.1": f"{name}.so.{version}"},
        )

    return [
        metapackage("nvidia-open", "nvidia-kernel-open-dkms"),
        metapackage("cuda-drivers", "nvidia-kernel-dkms"),
        package("nvidia-driver", "NVIDIA's driver, for displays", depends=(f"nvidia-driver-libs {same}",)),
        package("nvidia-driver-libs", "NVIDIA's libraries, for displays"),
        package(
            "nvidia-driver-cuda",
            "NVIDIA's driver, for computing",
            depends=(
                f"libcuda1 {same}",
                f"libnvidia-ml1 {same}",
                f"nvidia-smi {same}",
                f"nvidia-persistenced {newer}",
                f"nvidia-modprobe {newer}",
                f"nvidia-kernel-dkms {same} | nvidia-kernel-open-dkms {same}",
            ),
        ),
        library("libcuda1", "libcuda", nvml.CUDA_LIBRARY.read_bytes()),
        library("libnvidia-ml1", "libnvidia-ml", nvml.LIBRARY.read_bytes()),
        package(
            "nvidia-smi",
            "NVIDIA's System Management Interface",
            depends=(f"libnvidia-ml1 {same}", "python3"),
            programs={"/usr/bin/nvidia-smi": _text("nvidia-smi").encode()},
        ),
        package(
            "nvidia-modprobe",
            "Loads NVIDIA's kernel module",
            programs={"/usr/bin/nvidia-modprobe": _script("nvidia-modprobe")},
        ),
        package(
            "nvidia-kernel-support",
            "Settings of NVIDIA's kernel module",
            depends=("kmod", f"nvidia-modprobe {newer}"),
            files={"/usr/lib/modprobe.d/nvidia.conf": _script("modprobe.conf")},
            programs={"/usr/lib/nvidia/load-module": _script("load-module")},
        ),
        kernel_module("nvidia-kernel-open-dkms", other="nvidia-kernel-dkms"),
        kernel_module("nvidia-kernel-dkms", other="nvidia-kernel-open-dkms"),
        service("nvidia-persistenced", "nvidia-persistenced", "Keeps NVIDIA's driver loaded", started=True),
        service("nvidia-fabricmanager", "nv-fabricmanager", "Fabric Manager for NVSwitch systems"),
        service("nvidia-imex", "nvidia-imex", "IMEX for NVLink between hosts", depends=("nvidia-modprobe",)),
        package("libnvidia-nscq", "NVSwitch configuration and query library"),
        package("libnvsdm", "NVSwitch device monitoring library"),
    ]


def module(version: str, license_name: str, name: str = "nvidia") -> bytes:
    """A kernel module, as an ELF object with nothing but what modinfo reads: no kernel would load it."""
    fields = {"version": version, "license": license_name, "name": name, "vermagic": "none"}
    sections = {
        "": b"",
        ".modinfo": b"".join(f"{name}={value}".encode() + b"\0" for name, value in fields.items()),
        ".strtab": b"\0",
        ".symtab": bytes(24),  # the empty symbol that every table starts with
        ".shstrtab": b"",
    }
    kinds = {"": 0, ".modinfo": 1, ".strtab": 3, ".symtab": 2, ".shstrtab": 3}  # SHT_PROGBITS, _STRTAB, _SYMTAB
    sections[".shstrtab"] = b"".join(name.encode() + b"\0" for name in sections)
    order = list(sections)
    body, headers = b"", b""
    for section, content in sections.items():
        is_table = section == ".symtab"
        headers += struct.pack(
            "<IIQQQQIIQQ",
            sections[".shstrtab"].index(section.encode() + b"\0"),
            kinds[section],
            2 if section == ".modinfo" else 0,  # SHF_ALLOC
            0,
            64 + len(body) if section else 0,
            len(content),
            order.index(".strtab") if is_table else 0,
            1 if is_table else 0,  # the first symbol that is not local
            8 if section else 0,
            24 if is_table else 0,
        )
        body += content + bytes(-len(content) % 8)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little endian
    header = struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(order), order.index(".shstrtab")
    )  # relocatable, x86-64
    return identity + header + body + headers


def _pinning(branch: str) -> Package:
    pin = f"Package: {_PINNED}\nPin: version {branch}.*\nPin-Priority: 1000\n"
    return Package(
        f"nvidia-driver-pinning-{branch}",
        f"{branch}-1",
        f"Pins NVIDIA's driver to branch {branch}",
        architecture="all",
        maintainer=_MAINTAINER,
        provides=("nvidia-driver-pinning",),
        conflicts=("nvidia-driver-pinning",),
        replaces=("nvidia-driver-pinning",),
        files={f"/etc/apt/preferences.d/nvidia-driver-{branch}": pin.encode()},
    )


def _keyring(release: str, key: Key) -> Package:
    """As NVIDIA's: its list names NVIDIA's own servers, whatever mirror the package came from."""
    keyring = "/usr/share/keyrings/cuda-archive-keyring.gpg"
    address = f"https://developer.download.nvidia.com/compute/cuda/repos/{release}/x86_64/"
    return Package(
        "cuda-keyring",
        "1.1-1",
        "Key and source of NVIDIA's CUDA repository",
        architecture="all",
        maintainer=_MAINTAINER,
        files={
            keyring: key.public,
            f"/etc/apt/sources.list.d/cuda-{release}-x86_64.list": f"deb [signed-by={keyring}] {address} /\n".encode(),
            "/etc/apt/preferences.d/cuda-repository-pin-600": (
                b"Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: 600\n"
            ),
        },
    )


def _subnet_manager() -> Package:
    """Of NVLink 5; its version is not the driver's."""
    return Package(
        "nvlsm", "2025.10.11-1", "NVLink subnet manager", maintainer=_MAINTAINER, depends=("infiniband-diags",)
    )


def _headers() -> Package:
    return Package(
        "linux-headers-stand-in",
        "1.0",
        "What DKMS wants to find of the running kernel",
        architecture="all",
        files={"/usr/share/linux-headers-stand-in/empty.ko": module("1.0", "GPL", "empty")},
        scripts={"postinst": _text("headers.postinst")},
    )


def _text(name: str) -> str:
    return (_FILES / name).read_text()


def _script(name: str) -> bytes:
    return (_FILES / name).read_bytes()
