"""NVIDIA's exporter of DCGM for apt, with a stand-in: its packages are in no archive that is reached here.

Names and places are those of https://github.com/NVIDIA/dcgm-exporter, docker/Dockerfile and packaging/. The program
tells what the real one has told elsewhere; the first lines of the recording say where.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.settings import ROOT

from . import units
from .deb import Package

VERSIONS = (("4.6.0", "4.8.3"), ("4.7.0", "4.9.0"))  # of DCGM and of the exporter; the first is the role's
FILES = Path(__file__).with_name("files") / "dcgm"
RECORDING = ROOT / "tests/unit/fixtures/metrics/dcgm-exporter-l40s.prom"

_MAINTAINER = "cudatools <cudatools@nvidia.com>"


def packages() -> tuple[Package, ...]:
    """All versions of the exporter, and of the part of DCGM that is its library."""
    return tuple(package for versions in VERSIONS for package in _pair(*versions))


def _pair(dcgm: str, exporter: str) -> tuple[Package, Package]:
    program = (FILES / "dcgm-exporter").read_text().replace("@VERSION@", exporter).encode()
    return (
        Package("datacenter-gpu-manager-4-core", f"1:{dcgm}-1", "DCGM, a stand-in", maintainer=_MAINTAINER),
        Package(
            "datacenter-gpu-manager-exporter",
            f"{exporter}-1",
            "Exporter of DCGM, a stand-in",
            maintainer=_MAINTAINER,
            depends=("datacenter-gpu-manager-4-core", "python3"),
            files={
                "/etc/dcgm-exporter/default-counters.csv": (FILES / "default-counters.csv").read_bytes(),
                "/usr/lib/systemd/system/nvidia-dcgm-exporter.service": (
                    FILES / "nvidia-dcgm-exporter.service"
                ).read_bytes(),
                "/usr/share/dcgm-exporter/recording.prom": RECORDING.read_bytes(),
            },
            programs={"/usr/bin/dcgm-exporter": program},
            scripts=units.scripts("nvidia-dcgm-exporter.service"),
        ),
    )
