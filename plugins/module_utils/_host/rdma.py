"""The ports of a host for remote direct memory access, InfiniBand and RoCE; private to the collection.

As the kernel shows them: https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-class-infiniband
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .system import read_text

__all__ = ["RdmaPort", "described", "read_ports"]


@dataclass(frozen=True)
class RdmaPort:
    """One port of an adapter."""

    device: str  # mlx5_0: by this name NCCL_IB_HCA chooses
    port: int
    kind: str  # InfiniBand or RoCE
    active: bool  # data can go through it
    cable: bool  # the other end answers
    rate: str  # "400 Gb/sec"

    @property
    def name(self) -> str:
        """As NCCL_IB_HCA writes it."""
        return f"{self.device}:{self.port}"


def read_ports(root: Path = Path("/")) -> tuple[RdmaPort, ...]:
    """All ports of the host, by name."""
    places = sorted((root / "sys/class/infiniband").glob("*/ports/[0-9]*"))
    return tuple(
        RdmaPort(
            device=place.parent.parent.name,
            port=int(place.name),
            kind="RoCE" if read_text(place / "link_layer") == "Ethernet" else "InfiniBand",
            active=read_text(place / "state").endswith("ACTIVE"),  # "4: ACTIVE"
            cable=read_text(place / "phys_state").endswith("LinkUp"),  # "5: LinkUp"
            rate=read_text(place / "rate").partition(" (")[0],  # "400 Gb/sec (4X NDR)"
        )
        for place in places
    )


def described(ports: Iterable[RdmaPort]) -> str:
    """Those that data can go through, in words; "" if there are none."""
    counts = Counter((port.kind, port.rate) for port in ports if port.active)
    return " and ".join(f"{count} x {kind} of {rate}" for (kind, rate), count in sorted(counts.items()))
