"""GPUs by name."""

from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import CATALOGUE, gpu_type


@pytest.mark.parametrize(
    ("name", "total", "capability"),
    [
        ("NVIDIA H100 80GB HBM3", 79.19, (9, 0)),
        ("8 x H100 80GB HBM3, NVLink", 79.19, (9, 0)),
        ("NVIDIA H100 PCIe", 79.18, (9, 0)),
        ("NVIDIA H100 NVL", 93.1, (9, 0)),
        ("H100 NVL 94GB", 93.1, (9, 0)),
        ("NVIDIA H100 96GB HBM3", 94.5, (9, 0)),
        ("NVIDIA H20", 95.1, (9, 0)),
        ("NVIDIA H20-3e", 139.8, (9, 0)),
        ("NVIDIA A100-SXM-64GB", 63.4, (8, 0)),
        ("NVIDIA GeForce RTX 3080 Ti", 11.7, (8, 6)),
        ("NVIDIA H200", 139.8, (9, 0)),
        ("NVIDIA A100-SXM4-80GB", 79.28, (8, 0)),
        ("NVIDIA A100-SXM4-40GB", 39.5, (8, 0)),
        ("A100-PCIE-40GB", 39.38, (8, 0)),
        ("NVIDIA L4", 22.16, (8, 9)),
        ("NVIDIA L40S", 44.42, (8, 9)),
        ("NVIDIA A40", 44.42, (8, 6)),
        ("NVIDIA A10G", 22.06, (8, 6)),
        ("NVIDIA GeForce RTX 4090", 23.55, (8, 9)),
        ("NVIDIA GeForce RTX 5090", 31.37, (12, 0)),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 94.97, (12, 0)),
        ("Tesla T4", 14.65, (7, 5)),
        ("Tesla V100-SXM2-32GB", 31.74, (7, 0)),
        ("NVIDIA GB200", 184.9, (10, 0)),
    ],
)
def test_names(name: str, total: float, capability: tuple[int, int]) -> None:
    found = gpu_type(name)
    assert found.known
    assert (found.total_gib, found.compute_capability) == (total, capability)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("H100-SXM5", "H100 80GB"),
        ("h100_pcie", "H100 PCIe"),
        ("H800", "H100 80GB"),
        ("RTX4090", "RTX 4090"),
        ("RTX 3080Ti", "RTX 3080 Ti"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("A800-SXM4-40GB", "A100 40GB"),
    ],
)
def test_names_as_people_write_them(name: str, known: str) -> None:
    assert gpu_type(name).name == known


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA RTX A1000",
        "A1000",
        "H1000",
        "RTX A400",
        "L400",
        "H2000",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "H100 MIG 3g.40gb",
        "GRID A100-20C",
        "NVIDIA A10-8Q",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ],
)
def test_what_only_looks_like_a_gpu_of_the_catalogue_is_not_known(name: str) -> None:
    assert not gpu_type(name).known


def test_a_measured_total_wins() -> None:
    assert gpu_type("H100", 79.15).total_gib == 79.15
    odd = gpu_type("16GB GPU", 15.47)
    assert (odd.known, odd.total_gib) == (False, 15.47)


def test_nothing_is_known_of_the_unknown() -> None:
    assert gpu_type("").total_gib is None
    assert gpu_type("AMD Instinct MI300X").vendor == "amd"
    assert gpu_type("AMD Instinct MI300X").total_bytes == 0


def test_totals_are_below_the_marketing_size() -> None:
    for kind in CATALOGUE:
        assert kind.total_gib is not None
        assert 0.85 * kind.marketing_gb / 1.0738 < kind.total_gib < kind.marketing_gb, kind.name
