"""What the tests ask of a host again and again."""

from __future__ import annotations

from typing import Any

# Of the lab's mirror: two versions of the branch that the scenario pins, and a newer branch.
OLD, NEW, NEXT_BRANCH = "580.159.03", "580.178.04", "595.91.07"
DRIVER = ("libcuda1", "libnvidia-ml1", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-modprobe", "nvidia-smi")
COMPANIONS = ("nvidia-fabricmanager", "libnvidia-nscq", "nvidia-persistenced")
FAILING_BUILDS = "/etc/gpuhosts-lab/dkms-fails"  # versions that DKMS cannot build


def packages(host: Any) -> dict[str, str]:
    """Every package of the driver, with NVIDIA's version of it."""
    form = "${db:Status-Status} ${Package} ${Version}\\n"
    lines = host.check_output(f"dpkg-query --show --showformat='{form}'").splitlines()
    rows = [line.split(" ") for line in lines if "nvidia" in line or "libcuda1" in line]
    return {name: version.partition("-")[0] for status, name, version in rows if status != "config-files"}


def driver_packages(host: Any) -> set[str]:
    """The versions of all packages that have the driver's version."""
    return {version for version in packages(host).values() if version.count(".") == 2}


def loaded(host: Any) -> str:
    """Version of the kernel module in memory."""
    return host.check_output("cat /sys/module/nvidia/version")


def on_disk(host: Any) -> str:
    """Version of the kernel module that the next boot loads."""
    return host.check_output("modinfo -F version nvidia")
