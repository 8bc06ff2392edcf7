"""How fast types of GPU are, by the names that the driver or people give them; private to the collection.

The numbers are nominal rates of data sheets, not measurements. A name is matched word by word: an RTX A1000 is no A100,
and what stands for a part of a GPU (MIG, vGPU) or for another chip under the same number (laptops) has no speed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

__all__ = ["GPU_SPEEDS", "GpuSpeed", "gpu_speed"]

# One way, GB/s: transfers/s x lanes x 128/130 / 8 (PCI Express Base Specification).
_PCIE = {"3x16": 15.75, "4x8": 15.75, "4x16": 31.5, "5x8": 31.5, "5x16": 63.0, "6x16": 121.0, "-": 0.0}


@dataclass(frozen=True)
class GpuSpeed:
    """The nominal rates of one type of GPU.

    ``memory`` is its memory's bandwidth in GB/s (10**9 bytes). ``bf16`` and ``fp8`` are dense tensor rates in TFLOP/s
    (10**12; fp16 where a chip has no bf16; fp8 0: it has none). ``nvlink`` is GB/s of all links, both ways (0: none;
    cards with a bridge have it only if the bridge is there); ``pcie`` is GB/s one way. ``form`` is ``sxm`` (a module on
    a board with NVLink), ``card``, or ``chip`` (soldered). ``words`` name the type. ``source`` is where they stand.
    """

    name: str
    words: frozenset[str]
    form: str
    memory: float
    bf16: float
    fp8: float
    nvlink: float
    pcie: float
    source: str


def _row(words: str, form: str, rates: tuple[float, float, float, float], pcie: str, source: str) -> GpuSpeed:
    return GpuSpeed(words, frozenset(words.lower().split()), form, *rates, _PCIE[pcie], source)


_H100 = "NVIDIA H100 Tensor Core GPU data sheet (rates with sparsity halved)"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet (rates with sparsity halved)"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet"
_BLACKWELL = "NVIDIA Blackwell data sheets of HGX and GB systems (rates with sparsity halved)"
_ADA = "NVIDIA Ada GPU Architecture white paper (FP32 accumulation)"
_GA102 = "NVIDIA Ampere GA102 GPU Architecture white paper (FP32 accumulation)"
_RTX50 = "NVIDIA RTX Blackwell GPU Architecture white paper (FP32 accumulation)"
_SHEET = "NVIDIA data sheet of the product"

# name, form, (memory, bf16, fp8, NVLink), PCIe, source. The row with the most words that a name has is its type.
GPU_SPEEDS: tuple[GpuSpeed, ...] = (
    _row("H100", "sxm", (3350, 989, 1979, 900), "5x16", _H100),
    _row("H100 PCIe", "card", (2039, 756, 1513, 600), "5x16", _H100),
    _row("H100 NVL", "card", (3900, 835, 1671, 600), "5x16", _H100),
    _row("H800", "sxm", (3350, 989, 1979, 400), "5x16", "H100's, with NVLink at 400 GB/s"),
    _row("H800 PCIe", "card", (2039, 756, 1513, 400), "5x16", "H100 PCIe's, with NVLink at 400 GB/s"),
    _row("H200", "sxm", (4800, 989, 1979, 900), "5x16", _H200),
    _row("H200 NVL", "card", (4800, 835, 1671, 900), "5x16", _H200),
    _row("GH200", "chip", (4000, 989, 1979, 900), "5x16", "NVIDIA GH200 Grace Hopper Superchip data sheet, 96 GB"),
    _row("GH200 144GB", "chip", (4900, 989, 1979, 900), "5x16", "NVIDIA GH200 Grace Hopper Superchip data sheet"),
    _row("GH200 144G", "chip", (4900, 989, 1979, 900), "5x16", "NVIDIA GH200 Grace Hopper Superchip data sheet"),
    _row("H20", "sxm", (4000, 148, 296, 900), "5x16", "published specifications of the H20"),
    _row("H20 3e", "sxm", (4800, 148, 296, 900), "5x16", "published specifications of the H20-3e"),
    _row("H20 141GB", "sxm", (4800, 148, 296, 900), "5x16", "published specifications of the H20-3e"),
    _row("B200", "sxm", (8000, 2250, 4500, 1800), "5x16", _BLACKWELL),
    _row("B300", "sxm", (8000, 2250, 4500, 1800), "6x16", _BLACKWELL),
    _row("GB200", "chip", (8000, 2500, 5000, 1800), "5x16", _BLACKWELL),
    _row("GB300", "chip", (8000, 2500, 5000, 1800), "6x16", _BLACKWELL),
    _row("GB10", "chip", (273, 125, 250, 0), "-", "NVIDIA DGX Spark data sheet (1 PFLOP/s of sparse FP4, an eighth)"),
    _row("A100", "sxm", (2039, 312, 0, 600), "4x16", _A100),
    _row("A100 40GB", "sxm", (1555, 312, 0, 600), "4x16", _A100),
    _row("A100 64GB", "sxm", (1640, 358, 0, 600), "4x16", "CINECA, Leonardo's custom A100"),
    _row("A100 PCIe", "card", (1935, 312, 0, 600), "4x16", _A100),
    _row("A100 PCIe 40GB", "card", (1555, 312, 0, 600), "4x16", _A100),
    _row("A800", "sxm", (2039, 312, 0, 400), "4x16", "A100's, with NVLink at 400 GB/s"),
    _row("A800 40GB", "sxm", (1555, 312, 0, 400), "4x16", "A100's, with NVLink at 400 GB/s"),
    _row("A800 PCIe", "card", (1935, 312, 0, 400), "4x16", "A100 PCIe's, with NVLink at 400 GB/s"),
    _row("A800 PCIe 40GB", "card", (1555, 312, 0, 400), "4x16", "A100 PCIe's, with NVLink at 400 GB/s"),
    _row("L40S", "card", (864, 362, 733, 0), "4x16", _SHEET),
    _row("L40", "card", (864, 181, 362, 0), "4x16", _SHEET),
    _row("L20", "card", (864, 119, 239, 0), "4x16", "published specifications of the L20"),
    _row("L4", "card", (300, 121, 242, 0), "4x16", _SHEET + " (rates with sparsity halved)"),
    _row("A10", "card", (600, 125, 0, 0), "4x16", _SHEET),
    _row("A10G", "card", (600, 70, 0, 0), "4x16", "AWS, instances of type G5"),
    _row("A16", "card", (200, 18, 0, 0), "4x16", _SHEET + ", one GPU of four"),
    _row("A2", "card", (200, 18, 0, 0), "4x8", _SHEET),
    _row("A30", "card", (933, 165, 0, 200), "4x16", _SHEET),
    _row("A40", "card", (696, 150, 0, 112), "4x16", _SHEET),
    _row("A6000", "card", (768, 155, 0, 112), "4x16", _SHEET),
    _row("A5000", "card", (768, 111, 0, 112), "4x16", _SHEET),
    _row("A4000", "card", (448, 77, 0, 0), "4x16", _SHEET),
    _row("6000 Ada", "card", (960, 364, 728, 0), "4x16", _SHEET),
    _row("PRO 6000", "card", (1792, 503, 1007, 0), "5x16", _SHEET + " (FP4 rate with sparsity, an eighth)"),
    _row("PRO 6000 Max Q", "card", (1792, 438, 877, 0), "5x16", _SHEET + " (FP4 rate with sparsity, an eighth)"),
    _row("PRO 6000 Server", "card", (1597, 503, 1007, 0), "5x16", _SHEET + "; the trade press says 1792 GB/s"),
    _row("PRO 5000", "card", (1344, 258, 516, 0), "5x16", _SHEET + " (FP4 rate with sparsity, an eighth)"),
    _row("5090", "card", (1792, 209, 419, 0), "5x16", _RTX50),
    _row("5080", "card", (960, 113, 225, 0), "5x16", _RTX50),
    _row("5070 Ti", "card", (896, 88, 176, 0), "5x16", _RTX50),
    _row("5060 Ti", "card", (448, 47, 95, 0), "5x8", _RTX50),
    _row("4090", "card", (1008, 165, 330, 0), "4x16", _ADA),
    _row("4080", "card", (717, 97, 195, 0), "4x16", _ADA),
    _row("4070 Ti Super", "card", (672, 88, 176, 0), "4x16", _ADA),
    _row("4070", "card", (504, 58, 117, 0), "4x16", _ADA),
    _row("4060 Ti", "card", (288, 44, 88, 0), "4x8", _ADA),
    _row("3090", "card", (936, 71, 0, 112), "4x16", _GA102),
    _row("3080 Ti", "card", (912, 68, 0, 0), "4x16", _GA102),
    _row("3080", "card", (760, 60, 0, 0), "4x16", _GA102),
    _row("3060 Ti", "card", (448, 32, 0, 0), "4x16", _GA102),
    _row("3060", "card", (360, 25, 0, 0), "4x16", _GA102),
    _row(
        "2080 Ti", "card", (616, 54, 0, 100), "3x16", "NVIDIA Turing GPU Architecture white paper (FP32 accumulation)"
    ),
    _row("8000", "card", (672, 131, 0, 100), "3x16", "NVIDIA Turing GPU Architecture white paper"),
    _row("T4", "card", (320, 65, 0, 0), "3x16", _SHEET),
    _row("V100", "sxm", (900, 125, 0, 300), "3x16", _SHEET),
    _row("V100 PCIe", "card", (900, 112, 0, 0), "3x16", _SHEET),
)

# Words that tell nothing of the speed: makers, series, what the memory is called. A size tells only where a row has it.
_PLAIN = re.compile(
    r"nvidia|geforce|tesla|quadro|rtx|dgx|hgx|spark|gpu|blackwell|workstation|edition|generation|ampere|hopper"
    r"|hbm\w*|gddr\w*|\d+gb?|ac"
)
_OF_FORM = {"sxm": re.compile(r"sxm\d?"), "card": re.compile(r"pcie"), "chip": re.compile(r"(?!)")}
_GLUED = re.compile(r"(?<=\d)(sxm|pcie|nvl|ti|super)\b")  # as people write: RTX 3080Ti
_APART = re.compile(r"\b(\d+) gb\b")


@cache
def gpu_speed(name: str) -> GpuSpeed | None:
    """The rates of a GPU by the driver's name for it (``NVIDIA H100 80GB HBM3``) or a person's (``RTX 4090``).

    None where a word of the name says that it is something else, or that is not known. Where a person leaves the form
    open (``H100``) it is the module.
    """
    words = frozenset(_APART.sub(r"\1gb", _GLUED.sub(r" \1", re.sub(r"[-_/()]", " ", name.lower()))).split())
    found = [row for row in GPU_SPEEDS if row.words <= words]
    best = max(found, key=lambda row: len(row.words), default=None)
    if best is None:
        return None
    rest = words - best.words
    strange = [word for word in rest if not _PLAIN.fullmatch(word) and not _OF_FORM[best.form].fullmatch(word)]
    return None if strange else best
