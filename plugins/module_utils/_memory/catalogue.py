"""A small catalogue of GPUs, private to the collection: what a name alone tells about memory and architecture.

It serves plans made with no host at hand, and fills in what NVML does not say (the number of multiprocessors).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .._units import GIB

__all__ = ["CATALOGUE", "GpuType", "gpu_from_nvml", "gpu_type"]


@dataclass(frozen=True)
class GpuType:
    """One type of GPU, as vLLM will see it.

    ``total_gib`` is what ``cudaMemGetInfo`` calls total (what vLLM multiplies with the utilisation), in GiB;
    ``total_band_gib`` half the width of what was seen for it (ECC, driver reserve). ``marketing_gb`` is the size
    in the product's name. ``compute_capability`` is (major, minor); ``multiprocessors`` the number of SMs.
    ``nvlink``: boards of this type are usually joined by NVLink. ``vendor`` is ``nvidia`` or ``amd``.
    ``known`` is False for a name that is not in the catalogue.
    """

    name: str
    total_gib: float | None
    compute_capability: tuple[int, int]
    multiprocessors: int
    marketing_gb: int = 0
    total_band_gib: float = 0.1
    nvlink: bool = False
    vendor: str = "nvidia"
    known: bool = True
    unified_memory: bool = False

    @property
    def total_bytes(self) -> int:
        """Total memory in bytes; 0 when it is not known."""
        return int((self.total_gib or 0.0) * GIB)


# (pattern of the name in lower case, type). The first match wins, so the narrower name stands first. A pattern begins
# and ends where a word does: an RTX A1000 is no A100.
# total_gib: the totals that vLLM and torch print (start-up logs published by users; NVIDIA's product pages
# give only nominal sizes); multiprocessors and compute capability: NVIDIA's data sheets and the CUDA GPU list.
_ROWS: tuple[tuple[str, GpuType], ...] = (
    (r"gb10\b|dgx spark\b", GpuType("GB10", 119.6, (12, 1), 48, 128, 1.0, unified_memory=True)),
    (r"g?b300\b", GpuType("B300", 267.6, (10, 3), 148, 288, 2.0, nvlink=True)),
    (r"gb200\b", GpuType("GB200", 184.9, (10, 0), 148, 186, 2.0, nvlink=True)),
    (r"b200\b", GpuType("B200", 178.35, (10, 0), 148, 180, 0.3, nvlink=True)),
    (r"gh200\b.*144", GpuType("GH200 144GB", 139.8, (9, 0), 132, 144, 1.0, nvlink=True)),
    (r"gh200\b", GpuType("GH200 96GB", 94.5, (9, 0), 132, 96, 0.5, nvlink=True)),
    (r"h200\b", GpuType("H200", 139.8, (9, 0), 132, 141, 0.1, nvlink=True)),
    (r"h20\b.*(141|3e)", GpuType("H20 141GB", 139.8, (9, 0), 78, 141, 1.0, nvlink=True)),
    (r"h20\b", GpuType("H20", 95.1, (9, 0), 78, 96, 0.3, nvlink=True)),
    (r"h[18]00 nvl\b", GpuType("H100 NVL", 93.1, (9, 0), 132, 94, 0.3, nvlink=True)),
    (r"h100\b.*9[46] ?gb", GpuType("H100 96GB", 94.5, (9, 0), 132, 96, 1.0, nvlink=True)),
    (r"h[18]00\b.*pcie", GpuType("H100 PCIe", 79.18, (9, 0), 114, 80, 0.05)),
    (r"h[18]00\b", GpuType("H100 80GB", 79.19, (9, 0), 132, 80, 0.04, nvlink=True)),
    (r"a[18]00\b.*pcie.*40", GpuType("A100 40GB PCIe", 39.38, (8, 0), 108, 40)),
    (r"a[18]00\b.*40 ?gb", GpuType("A100 40GB", 39.5, (8, 0), 108, 40, nvlink=True)),
    (r"a100\b.*64 ?gb", GpuType("A100 64GB", 63.4, (8, 0), 124, 64, 0.3, nvlink=True)),
    (r"a[18]00\b", GpuType("A100 80GB", 79.28, (8, 0), 108, 80, 0.06, nvlink=True)),
    (r"l40s\b", GpuType("L40S", 44.42, (8, 9), 142, 48)),
    (r"l40\b", GpuType("L40", 44.42, (8, 9), 142, 48)),
    (r"l20\b", GpuType("L20", 44.5, (8, 9), 92, 48, 0.2)),
    (r"l4\b", GpuType("L4", 22.16, (8, 9), 58, 24)),
    (r"rtx pro 6000\b", GpuType("RTX PRO 6000", 94.97, (12, 0), 188, 96)),
    (r"rtx pro 5000\b", GpuType("RTX PRO 5000", 47.4, (12, 0), 110, 48, 0.3)),
    (r"(rtx )?6000 ada\b", GpuType("RTX 6000 Ada", 47.5, (8, 9), 142, 48, 0.3)),
    (r"a6000\b", GpuType("RTX A6000", 47.5, (8, 6), 84, 48, 0.2)),
    (r"a5000\b", GpuType("RTX A5000", 23.6, (8, 6), 64, 24, 0.2)),
    (r"a4000\b", GpuType("RTX A4000", 15.7, (8, 6), 48, 16, 0.2)),
    (r"a40\b", GpuType("A40", 44.42, (8, 6), 84, 48)),
    (r"a10g\b", GpuType("A10G", 22.06, (8, 6), 80, 24)),
    (r"a10\b", GpuType("A10", 22.06, (8, 6), 72, 24)),
    (r"a30\b", GpuType("A30", 23.6, (8, 0), 56, 24, 0.2)),
    (r"a16\b|a2\b", GpuType("A2", 14.6, (8, 6), 10, 16, 0.2)),
    (r"5090\b", GpuType("RTX 5090", 31.37, (12, 0), 170, 32)),
    (r"5080\b", GpuType("RTX 5080", 15.5, (12, 0), 84, 16, 0.1)),
    (r"5070 ti\b", GpuType("RTX 5070 Ti", 15.5, (12, 0), 70, 16, 0.1)),
    (r"5060 ti\b", GpuType("RTX 5060 Ti", 15.5, (12, 0), 36, 16, 0.1)),
    (r"4090\b", GpuType("RTX 4090", 23.55, (8, 9), 128, 24)),
    (r"4080\b", GpuType("RTX 4080", 15.7, (8, 9), 76, 16, 0.2)),
    (r"4070 ti super\b", GpuType("RTX 4070 Ti SUPER", 15.7, (8, 9), 66, 16, 0.2)),
    (r"4070\b", GpuType("RTX 4070", 11.7, (8, 9), 46, 12, 0.2)),
    (r"4060 ti\b", GpuType("RTX 4060 Ti", 15.6, (8, 9), 34, 16, 0.2)),
    (r"3090\b", GpuType("RTX 3090", 23.6, (8, 6), 82, 24)),
    (r"3080 ti\b", GpuType("RTX 3080 Ti", 11.7, (8, 6), 80, 12, 0.2)),
    (r"3080\b", GpuType("RTX 3080", 9.7, (8, 6), 68, 10, 0.2)),
    (r"3060 ti\b", GpuType("RTX 3060 Ti", 7.66, (8, 6), 38, 8, 0.1)),
    (r"3060\b", GpuType("RTX 3060", 11.66, (8, 6), 28, 12, 0.1)),
    (r"2080 ti\b", GpuType("RTX 2080 Ti", 10.57, (7, 5), 68, 11, 0.2)),
    (r"rtx 8000\b", GpuType("Quadro RTX 8000", 47.4, (7, 5), 72, 48, 0.2)),
    (r"t4\b", GpuType("T4", 14.65, (7, 5), 40, 16)),
    (r"v100\b.*32", GpuType("V100 32GB", 31.74, (7, 0), 80, 32, nvlink=True)),
    (r"v100\b", GpuType("V100 16GB", 15.77, (7, 0), 80, 16, nvlink=True)),
)
CATALOGUE: tuple[GpuType, ...] = tuple(kind for _, kind in _ROWS)

# A part of a GPU (MIG, vGPU), or another chip under the same number.
_PART = re.compile(r"\bmig\b|-\d+[abcq]\b|\blaptop\b|\bmobile\b")
_AMD = re.compile(r"\bamd\b|\bmi[123]\d\d|radeon|rx [679]\d{3}")


def gpu_type(name: str, total_gib: float | None = None) -> GpuType:
    """What is known of the GPU called ``name``.

    ``name`` is NVML's (``NVIDIA H100 80GB HBM3``) or a person's (``RTX 4090``). ``total_gib`` is torch's total when
    somebody measured it, and replaces the catalogue's. A name that is not in the catalogue gives a record with
    ``known`` False, and no total unless one was given; nothing is raised.
    """
    lowered = _words(name)
    found = None
    if not _AMD.search(lowered) and not _PART.search(lowered):
        found = next((kind for rx, kind in _ROWS if re.search(rf"(?:\b|(?<=rtx))(?:{rx})", lowered)), None)
    if found is None:
        vendor = "amd" if _AMD.search(lowered) else "nvidia"
        # The number of multiprocessors matters little (one small buffer of the sampler): a usual one.
        found = GpuType(name, None, (8, 0), 108, known=False, vendor=vendor, total_band_gib=0.5)
    if total_gib:
        found = replace(found, total_gib=total_gib, total_band_gib=0.01)
    return found


def _words(name: str) -> str:
    """A name in lower case, with spaces where people leave them out (``H100-SXM5``, ``h100_pcie``, ``RTX 3080Ti``)."""
    return re.sub(r"(?<=\d)(sxm|pcie|nvl|oam|ti|super)", r" \1", name.lower().replace("_", " "))


def gpu_from_nvml(
    name: str, total_bytes: int, reserved_bytes: int, compute_capability: tuple[int, int] | None = None
) -> GpuType:
    """The type of a GPU that NVML describes.

    ``total_bytes`` and ``reserved_bytes`` are those of ``nvmlDeviceGetMemoryInfo`` version 2: torch's total is
    their difference (the driver's and firmware's share cannot be allocated; version 1 hides it in "used").
    """
    found = gpu_type(name, (total_bytes - reserved_bytes) / GIB)
    if compute_capability is not None:
        found = replace(found, compute_capability=compute_capability)
    return replace(found, total_band_gib=0.06)
