"""How the nodes of an instance reach each other from this host: interface and ports; private to the collection.

vLLM, NCCL and gloo each guess an interface where they are told none, and a wrong guess (Docker's bridge, a management
network) shows as a start that hangs. The nodes' own addresses say which one is meant.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .._errors import NetworkError
from .._host.access import Opening

__all__ = ["interface_variables", "interfaces", "openings"]

_SIOCGIFCONF = 0x8912  # linux/sockios.h
_ENTRY = 40  # bytes of a struct ifreq on 64-bit Linux: a name of 16, then an address
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def interfaces() -> dict[str, str]:
    """The interfaces of this host by their IPv4 addresses."""
    buffer = array.array("B", bytes(1024 * _ENTRY))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_one:
        request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        used, _ = struct.unpack("iL", fcntl.ioctl(any_one.fileno(), _SIOCGIFCONF, request))
    data = buffer.tobytes()
    entries = (data[start : start + _ENTRY] for start in range(0, used, _ENTRY))
    return {socket.inet_ntoa(entry[20:24]): entry[:16].split(b"\0")[0].decode().partition(":")[0] for entry in entries}


def interface_variables(instance: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """Variables that name the interface to the other nodes; none for an instance that has no others.

    :param known: interfaces by address.
    :raises NetworkError: no interface has the address of the node.
    """
    if not instance.get("peers"):
        return {}
    address = instance["node"]["address"]
    name = known.get(address)
    if name is None:
        raise NetworkError(
            f"{instance['id']}: no interface of this host has the address {address}, by which the other nodes of the "
            f"instance are to reach it; there are {', '.join(sorted(known))}. Set fleet_cluster_address of this host "
            "to one of its own."
        )
    # NCCL takes a name for the beginning of one; "=" makes it that one alone
    # (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html).
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}", "TP_SOCKET_IFNAME": name}


def openings(instances: Iterable[Mapping[str, Any]]) -> list[Opening]:
    """What the other nodes of instances have to reach here.

    That is the block of ports of the instance and those that the kernel hands out: torch, gloo, NCCL and vLLM's
    message queues listen on whatever port they are given, and none of them can be told a range.
    """
    spanning = [instance for instance in instances if instance.get("peers")]
    if not spanning:
        return []
    low, high = map(int, _RANGE.read_text(encoding="ascii").split())
    ports: list[Opening] = []
    for instance in spanning:
        first, last = instance["peer_ports"]
        ports += [Opening(start, end, tuple(instance["peers"])) for start, end in _apart((first, last), (low, high))]
    return ports


def _apart(*ranges: tuple[int, int]) -> list[tuple[int, int]]:
    """Ranges of ports without what two of them share."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
