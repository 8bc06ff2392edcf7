from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import CATALOGUE
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.gpus import GPU_SPEEDS, gpu_speed

# As NVML tells them, or people.
NAMES = {
    "NVIDIA H100 80GB HBM3": "H100",
    "H100-SXM5-80GB": "H100",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA H200": "H200",
    "NVIDIA H200 NVL": "H200 NVL",
    "NVIDIA H20-3e": "H20 3e",
    "NVIDIA GH200 480GB": "GH200",
    "NVIDIA GH200 144G HBM3e": "GH200 144G",
    "NVIDIA B300 SXM6 AC": "B300",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA A100-SXM4-40GB": "A100 40GB",
    "NVIDIA A100 80GB PCIe": "A100 PCIe",
    "NVIDIA A100-PCIE-40GB": "A100 PCIe 40GB",
    "NVIDIA L40S": "L40S",
    "NVIDIA RTX 6000 Ada Generation": "6000 Ada",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "PRO 6000 Server",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "PRO 6000 Max Q",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "PRO 6000",
    "NVIDIA GeForce RTX 4070 Ti SUPER": "4070 Ti Super",
    "RTX 3080Ti": "3080 Ti",
    "Quadro RTX 8000": "8000",
    "Tesla V100-SXM2-32GB": "V100",
    "DGX Spark (GB10)": "GB10",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_a_name_has_its_type(name: str, expected: str) -> None:
    found = gpu_speed(name)
    assert found is not None
    assert found.name == expected


@pytest.mark.parametrize(
    "name",
    [
        "RTX A1000",
        "H1000",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "GRID A100-10C",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 5090 D",
        "NVIDIA GeForce RTX 4070 Ti",
        "NVIDIA RTX 4000 Ada Generation",
        "AMD Instinct MI300X",
        "GPU without a name",
        "",
    ],
)
def test_another_one_has_none(name: str) -> None:
    assert gpu_speed(name) is None


def test_every_type_of_the_catalogue_has_a_speed() -> None:
    assert [kind.name for kind in CATALOGUE if gpu_speed(kind.name) is None] == []


def test_no_two_rows_are_of_one_name() -> None:
    assert len({row.words for row in GPU_SPEEDS}) == len(GPU_SPEEDS)
    assert [row.name for row in GPU_SPEEDS if gpu_speed(row.name) is not row] == []


def test_rates_are_plausible() -> None:
    for row in GPU_SPEEDS:
        assert row.source, row.name
        assert 100 <= row.memory <= 8000, row.name
        assert row.fp8 == 0 or 1.9 <= row.fp8 / row.bf16 <= 2.1, row.name
        # So many operations for a byte have been usual since there are tensor cores.
        assert 30 <= row.bf16 * 1000 / row.memory <= 550, row.name
        assert (row.form == "sxm") <= (row.nvlink >= 300), row.name


def test_variants_differ() -> None:
    module, card = gpu_speed("H100 SXM5"), gpu_speed("H100 PCIe")
    assert module is not None
    assert card is not None
    assert module.memory > card.memory
    assert module.bf16 > card.bf16
