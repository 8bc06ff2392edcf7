"""The verdict on a GPU: each thing that speaks against one, and whether an engine may run there all the same."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuProcess, MigDevice
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.health import (
    findings,
    foreign_processes,
    unusable,
)

HEALTHY: dict[str, Any] = {
    "name": "NVIDIA H100",
    "mig_enabled": False,
    "compute_capability": "9.0",
    "fabric_state": "completed",
    "ecc_enabled": True,
    "processes": (GpuProcess(7), GpuProcess(8)),
}
SLICES = (MigDevice(), MigDevice())


@pytest.mark.parametrize(
    ("changes", "code", "state", "usable"),
    [
        ({"lost": True}, "gpu_lost", "lost (fell off the bus)", False),
        ({"mig_enabled": True, "mig_devices": SLICES}, "mig_enabled", "MIG on, 2 slices", False),
        ({"compute_capability": "7.0"}, "compute_capability", "NVIDIA H100 has compute capability 7.0", False),
        ({"fabric_state": "in_progress"}, "fabric_incomplete", "fabric in_progress", True),
        ({"ecc_enabled": False}, "ecc_off", "ECC off", True),
    ],
)
def test_what_speaks_against_a_gpu(changes: dict[str, Any], code: str, state: str, usable: bool) -> None:
    gpu = Gpu(0, **{**HEALTHY, **changes})
    (finding,) = findings(gpu)
    assert (finding.code, finding.state, finding.usable) == (code, state, usable)
    assert unusable(gpu) == (None if usable else finding)


@pytest.mark.parametrize("told", [HEALTHY, {}, {"compute_capability": "7.5"}, {"compute_capability": "12.0"}])
def test_nothing_speaks_against_a_healthy_gpu_or_what_is_not_told(told: dict[str, Any]) -> None:
    assert findings(Gpu(0, **told)) == ()


def test_processes_of_nobody_that_is_known() -> None:
    gpu = Gpu(0, **HEALTHY)
    assert foreign_processes(gpu, lambda process: process.pid == 7) == (GpuProcess(8),)
    (finding,) = findings(gpu, lambda process: process.pid == 7)
    assert (finding.code, finding.usable) == ("orphan_process", True)
    assert finding.state.endswith("(pid 8)")


def test_all_that_speaks_against_one() -> None:
    codes = [
        finding.code for finding in findings(Gpu(0, mig_enabled=True, ecc_enabled=False, compute_capability="6.1"))
    ]
    assert codes == ["mig_enabled", "compute_capability", "ecc_off"]
