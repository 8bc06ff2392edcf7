"""Files that the role nvidia_driver writes: their texts; private to the collection."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NOUVEAU", "SANDBOX", "UNATTENDED", "list_of_archives", "nodes_of_imex", "preferences", "versionlock"]

_HEADER = "Managed by Ansible, role gpuhosts.vllm.nvidia_driver"

NOUVEAU = f"# {_HEADER}.\nblacklist nouveau\noptions nouveau modeset=0\n"

# The man page of nvidia-persistenced, "Privileges", says what it needs: its directory below /run, the devices, and
# nvidia-modprobe, which is setuid, loads the kernel module and makes the devices.
SANDBOX = f"""\
# {_HEADER}: additions to the unit of the driver's package.
[Service]
# What nvidia-modprobe and a change of user need.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_MKNOD CAP_SETGID CAP_SETUID CAP_SYS_MODULE
LockPersonality=yes
# It answers at a socket in the file system, and logs to another one.
IPAddressDeny=any
PrivateMounts=yes
PrivateNetwork=yes
PrivateTmp=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
# Where memory of GPUs is memory of the host, it takes it in.
ReadWritePaths=/run -/sys/devices/system/memory
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service @module
# Left out on purpose: NoNewPrivileges, with which nvidia-modprobe is not setuid any more; ProtectKernelModules; and
# what would hide the GPUs: PrivateDevices, and ProtectClock, which brings a device policy.
"""

UNATTENDED = (
    f"// {_HEADER}: a new library with the old kernel module in memory stops every GPU.\n"
    "Unattended-Upgrade::Package-Blacklist "
    '{ "nvidia-"; "libnvidia-"; "libcuda1"; "cuda-"; "linux-modules-nvidia-"; };\n'
)


def preferences(pins: Iterable[str], version: str) -> str:
    """Apt's preferences for one version of everything whose name matches a pin."""
    return f"# {_HEADER}.\nPackage: {' '.join(pins)}\nPin: version {version}-*\nPin-Priority: 1001\n"


def versionlock(globs: Iterable[str], version: str) -> str:
    """Lines of dnf's versionlock. Without an epoch, of which dnf knows no glob: a line with one is not read."""
    return "".join(f"{glob}-{version}-*.*\n" for glob in globs) if version else ""


def list_of_archives(archives: Iterable[str], components: Iterable[str]) -> str:
    """A list of apt's sources; an archive is an address and a suite."""
    return f"# {_HEADER}.\n" + "".join(f"deb {one} {' '.join(components)}\n" for one in archives)


def nodes_of_imex(addresses: Iterable[str]) -> str:
    """The hosts of an NVLink domain, one a line."""
    return "".join(f"{address}\n" for address in addresses)
