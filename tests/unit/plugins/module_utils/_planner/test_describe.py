"""Hosts that are only described."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import WishError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.describe import described_hosts


def test_a_host_is_described_by_its_gpus() -> None:
    first, second = described_hosts(
        [
            {"name": "gpu1", "gpus": "2 x H100 80GB HBM3, NVLink", "address": "10.0.0.1"},
            {"name": "gpu2", "gpus": "1 x L40S"},
        ]
    )
    assert (first["address"], second["address"]) == ("10.0.0.1", "gpu2")
    facts = first["gpu_facts"]
    assert (facts["link"], facts["domains"], second["gpu_facts"]["link"]) == ("nvlink", [[0, 1]], "pcie")
    assert facts["gpus"][1] == {
        "index": 1,
        "name": "H100 80GB HBM3",
        "total_gib": 79.19,
        "compute_capability": "9.0",
    }


@pytest.mark.parametrize(
    ("gpus", "link", "domains"),
    [
        ("4 x A100 80GB, NVLink + 2 x L4", "nvlink", [[0, 1, 2, 3], [4], [5]]),
        ("2 x RTX 4090+1 x RTX 3090", "pcie", [[0, 1, 2]]),
        ("2 x A40, NVLink + 2 x A40, nvlink", "nvlink", [[0, 1], [2, 3]]),
        ("8 x H100, PCIe", "pcie", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_several_types_in_one_host(gpus: str, link: str, domains: list[list[int]]) -> None:
    (host,) = described_hosts([{"name": "gpu1", "gpus": gpus}])
    facts = host["gpu_facts"]
    assert (facts["link"], facts["domains"]) == (link, domains)
    assert [gpu["index"] for gpu in facts["gpus"]] == sorted(index for domain in domains for index in domain)
    assert facts["gpus"][-1]["name"] in gpus


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("8 x H100 80GB HBM3", "'8 x H100 80GB HBM3' is no description of a host. Write {name: gpu1, gpus:"),
        (
            {"name": "gpu1", "gpus": "1 x L4", "adress": "10.0.0.1"},
            "unknown key 'adress' in the description of a host; did you mean 'address'?",
        ),
        ({"name": "gpu1", "gpus": "1000000 x H100"}, "gpu1: 1000000 GPUs are no host; there are 1 to 64 in one"),
        ({"name": "gpu1", "gpus": "0 x H100"}, "gpu1: 0 GPUs are no host"),
        ({"name": "gpu1", "gpus": "1 x A1000"}, "gpu1: there is no GPU called 'A1000' in the catalogue"),
        ({"name": "gpu1", "gpus": "1 x H1000"}, "gpu1: there is no GPU called 'H1000' in the catalogue"),
        ({"name": "gpu1", "gpus": "1 x H100 MIG 3g.40gb"}, "gpu1: 'H100 MIG 3g.40gb' is a part of a GPU; only whole"),
        ({"name": "gpu1", "gpus": "1 x A100-20C"}, "gpu1: 'A100-20C' is a part of a GPU"),
        (
            {"name": "gpu1", "gpus": "2 x RTX 4060 Ti 8GB"},
            "gpu1: there is no 'RTX 4060 Ti 8GB' in the catalogue of this collection; the nearest is 'RTX 4060 Ti'",
        ),
        ({"name": "gpu1", "gpus": "eight H100"}, "is no description of a host. Write"),
        ({"gpus": "8 x H100"}, "is no description of a host. Write"),
        ({"name": "gpu1", "gpus": "8 x H100 + L4"}, "is no description of a host. Write"),
        (
            {"name": "gpu1", "gpus": "8 x RTX 409O"},
            "gpu1: there is no GPU called 'RTX 409O' in the catalogue of this collection; did you mean 'RTX 4090'?",
        ),
        (
            {"name": "gpu1", "gpus": "8 x Voodoo 2"},
            "'Voodoo 2' in the catalogue of this collection; there are A10, A100 40GB, A100 40GB PCIe, A100 64GB,",
        ),
    ],
)
def test_what_cannot_be_described_is_said(host: Any, message: str) -> None:
    with pytest.raises(WishError, match=re.escape(message)):
        described_hosts([host])


def test_two_of_one_name_are_told() -> None:
    with pytest.raises(WishError, match="fleet_described_hosts: two hosts are called 'gpu1'"):
        described_hosts([{"name": "gpu1", "gpus": "1 x L4"}] * 2)
