"""GPU hosts that are only described, as the planner takes them; private to the collection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .._errors import WishError
from .._memory.catalogue import CATALOGUE, GpuType, gpu_type
from .._wishes.options import did_you_mean

__all__ = ["described_hosts"]

MOST_GPUS = 64
_KEYS = ("name", "address", "gpus")
_HOW = "Write {name: gpu1, gpus: '8 x H100 80GB HBM3, NVLink'}, or '2 x RTX 4090 + 1 x L4' for several types."
_PART = re.compile(r"\s*(\d{1,9})\s*x\s+([^,]+?)\s*(?:,\s*(nvlink|pcie)\s*)?", re.IGNORECASE)


def described_hosts(hosts: Iterable[Any]) -> list[dict[str, Any]]:
    """The records of hosts such as ``{name: gpu1, gpus: "8 x H100 80GB HBM3, NVLink"}``.

    Without a link in the text it is the one that the type of GPU usually has. Several types are joined by ``+``.

    :raises WishError: a description that cannot be read, or a GPU that is not in the catalogue.
    """
    described = [_described(host) for host in hosts]
    names = [host["name"] for host in described]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise _wrong(f"two hosts are called {twice!r}; give each a name of its own.")
    return described


def _wrong(problem: str) -> WishError:
    return WishError([f"fleet_described_hosts: {problem}"])


def _described(host: Any) -> dict[str, Any]:
    if not isinstance(host, Mapping):
        raise _wrong(f"{host!r} is no description of a host. {_HOW}")
    for key in host:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS) or f"; there are {', '.join(_KEYS)}."
            raise _wrong(f"{dict(host)!r}: unknown key {str(key)!r} in the description of a host{hint}")
    parts = [_PART.fullmatch(part) for part in str(host.get("gpus", "")).split("+")]
    if not host.get("name") or None in parts:
        raise _wrong(f"{dict(host)!r} is no description of a host. {_HOW}")
    number = sum(int(part.group(1)) for part in parts if part)
    if not 0 < number <= MOST_GPUS:
        raise _wrong(f"{host['name']}: {number} GPUs are no host; there are 1 to {MOST_GPUS} in one.")
    gpus: list[dict[str, Any]] = []
    linked: dict[str, list[list[int]]] = {"nvlink": [], "pcie": []}
    for count, name, link in (part.groups() for part in parts if part):
        kind = _known(name, host["name"])
        indices = list(range(len(gpus), len(gpus) + int(count)))
        gpus += [{"index": index, **_facts(name, kind)} for index in indices]
        linked[link.lower() if link else "nvlink" if kind.nvlink else "pcie"].append(indices)
    # As gpu_facts has it: where any are joined by NVLink the others are on their own, else all hang on one PCIe root.
    rest = [index for indices in linked["pcie"] for index in indices]
    domains = [*linked["nvlink"], *([index] for index in rest)] if linked["nvlink"] else [rest]
    facts = {"link": "nvlink" if linked["nvlink"] else "pcie", "domains": domains, "gpus": gpus}
    return {
        "name": host["name"],
        "address": host.get("address", host["name"]),
        "gpu_facts": {**facts, "driver_version": None, "reason": None},
        "instances": [],
    }


def _known(name: str, host: str) -> GpuType:
    kind = gpu_type(name)
    if re.search(r"\bmig\b|-\d+[abcq]\b", name, re.IGNORECASE):
        raise _wrong(f"{host}: {name!r} is a part of a GPU; only whole ones are planned. Name the whole GPU.")
    stated = re.search(r"\b(\d+) ?GB\b", name, re.IGNORECASE)
    # GH200 is called after the memory of its CPU.
    if kind.known and stated and "GH200" not in kind.name and not _near(int(stated.group(1)), kind.marketing_gb):
        raise _wrong(
            f"{host}: there is no {name!r} in the catalogue of this collection; the nearest is {kind.name!r} with "
            f"{kind.marketing_gb} GB."
        )
    if not kind.known:
        names = sorted({known.name for known in CATALOGUE})
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}."
        raise _wrong(f"{host}: there is no GPU called {name!r} in the catalogue of this collection{hint}")
    return kind


def _near(stated: int, known: int) -> bool:
    """Whether two sizes mean the same memory; names round it."""
    return 0.9 * known <= stated <= 1.1 * known


def _facts(name: str, kind: GpuType) -> dict[str, Any]:
    """What gpu_facts would return of a GPU, as far as a name tells."""
    capability = ".".join(map(str, kind.compute_capability))
    return {"name": name, "total_gib": kind.total_gib, "compute_capability": capability}
