"""The metrics of GPUs: DCGM's names by the real protocol of NVML, and what becomes of them when something is wrong."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import metrics_gpu
import metrics_nvml
import pytest
from metrics_text import samples

ROOT = Path(__file__).resolve().parents[3]
H100 = (ROOT / "tests/fake_nvml/hosts/2xh100.conf").read_text()
READ = """
import sys
from pathlib import Path
from metrics_gpu import GpuPart
from metrics_text import Metrics
part = GpuPart(Path(sys.argv[1]), dcgm_names=sys.argv[2] == "dcgm")
for _ in range(2):
    metrics = Metrics()
    part.run(metrics)
print(metrics.text())
"""
Read = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with two GPUs on its bus."""
    for name in ("0000:1b:00.0", "0000:43:00.0"):
        device = tmp_path / "root/sys/bus/pci/devices" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
    module = tmp_path / "root/sys/module/nvidia"
    module.mkdir(parents=True)
    (module / "version").write_text("580.95.05\n")
    return tmp_path / "root"


@pytest.fixture
def read(fake_nvml: Path, tmp_path: Path, root: Path) -> Read:
    """What the second run tells of a host that a text describes."""

    def run(description: str, names: str = "dcgm") -> str:
        config = tmp_path / "fake-nvml.conf"
        config.write_text(description)
        path = {"PYTHONPATH": str(ROOT / "roles/exporters/files/metrics"), "LD_LIBRARY_PATH": str(fake_nvml)}
        done = subprocess.run(
            [sys.executable, "-c", READ, root, names],
            env=os.environ | path | {"FAKE_NVML_CONFIG": str(config)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def values(text: str, name: str) -> list[float]:
    return [value for _, value in samples(text, name)]


def test_structures_are_laid_out_as_in_nvidias_own_binding() -> None:
    pynvml = __import__("pynvml")
    for own, theirs in {
        metrics_nvml.MemoryV2: pynvml.c_nvmlMemory_v2_t,
        metrics_nvml.Utilization: pynvml.c_nvmlUtilization_t,
        metrics_nvml.PciInfo: pynvml.nvmlPciInfo_t,
        metrics_nvml.ProcessInfo: pynvml.c_nvmlProcessInfo_v3_t,
        metrics_nvml.EventData: pynvml.c_nvmlEventData_t,
    }.items():
        offsets = [getattr(own, field[0]).offset for field in own._fields_]
        assert ctypes.sizeof(own) == ctypes.sizeof(theirs)
        assert offsets == [getattr(theirs, field[0]).offset for field in theirs._fields_]


def test_functions_are_those_of_nvidias_own_binding() -> None:
    """Names in quotes: a wrong one would be a metric that never comes."""
    source = "".join(Path(str(module.__file__)).read_text() for module in (metrics_gpu, metrics_nvml))
    asked = {word for word in source.replace('"', " ").split() if word.startswith("nvml")}
    binding = Path(str(__import__("pynvml").__file__)).read_text()
    asked = {word.strip(",():") for word in asked if "." not in word and "/" not in word}
    functions = {word for word in asked if word[4:5].isupper() and not word.endswith("_t") and "Type" not in word}
    assert len(functions) > 20
    assert {name for name in functions if f'"{name}"' not in binding} == set()


def test_numbers_are_those_of_nvidias_own_binding() -> None:
    pynvml = __import__("pynvml")
    assert (metrics_gpu._SM, metrics_gpu._MEMORY) == (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM)
    assert metrics_gpu._CORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    assert metrics_gpu._UNCORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    assert (metrics_gpu._VOLATILE, metrics_gpu._AGGREGATE) == (pynvml.NVML_VOLATILE_ECC, pynvml.NVML_AGGREGATE_ECC)
    assert (metrics_gpu._REPLAY, metrics_gpu._RECOVERY, metrics_gpu._CRC_FLIT, metrics_gpu._CRC_DATA) == (
        pynvml.NVML_NVLINK_ERROR_DL_REPLAY,
        pynvml.NVML_NVLINK_ERROR_DL_RECOVERY,
        pynvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
        pynvml.NVML_NVLINK_ERROR_DL_CRC_DATA,
    )
    assert pynvml.nvmlEventTypeXidCriticalError == metrics_nvml._XID_CRITICAL_ERROR
    assert pynvml.nvmlMemory_v2 == metrics_nvml._MEMORY_V2


def test_what_a_gpu_tells_has_dcgms_names_and_units(read: Read) -> None:
    working = "\n[gpu 1]\ntemperature = 64\npower_w = 350\nutilization = 97\nxid = 79\necc_corrected = 3\n"
    working += "ecc_uncorrected = 1\nnvlink_errors = 2\npcie_replays = 5\nrow_remap_failure = yes\nclock_reasons = 64\n"
    text = read(H100 + working)
    expected = {
        "DCGM_FI_DEV_GPU_TEMP": [0, 64],
        "DCGM_FI_DEV_POWER_USAGE": [0, 350],
        "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": [700, 700],
        "DCGM_FI_DEV_GPU_UTIL": [0, 97],
        "DCGM_FI_DEV_FB_FREE": [81559 - 561] * 2,
        "DCGM_FI_DEV_FB_RESERVED": [561, 561],
        "DCGM_FI_DEV_XID_ERRORS": [0, 79],
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": [0, 3],
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": [0, 1],
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": [0, 1],
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": [0, 36],
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": [0, 5],
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": [0, 64],
        "DCGM_FI_DEV_PCIE_MAX_LINK_GEN": [5, 5],
        "gpuhosts_gpus_expected": [2],
        "gpuhosts_gpus_found": [2],
        "gpuhosts_gpu_orphan_bytes": [0, 0],
    }
    assert {name: values(text, name) for name in expected} == expected
    labels, _ = next(samples(text, "DCGM_FI_DEV_GPU_TEMP"))
    assert list(labels) == ["gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname", "DCGM_FI_DRIVER_VERSION"]
    assert labels["UUID"].startswith("GPU-")
    assert (labels["device"], labels["modelName"]) == ("nvidia0", "NVIDIA H100 80GB HBM3")


def test_the_names_and_types_are_those_that_dcgm_exporter_knows() -> None:
    lines = (ROOT / "tests/unit/fixtures/dcgm_fields.csv").read_text().splitlines()
    known = dict(line.split(",") for line in lines if not line.startswith("#"))
    assert set(metrics_gpu.DCGM) <= set(known)
    assert {name: kind for name, (kind, _) in metrics_gpu.DCGM.items() if known[name] not in ("", kind)} == {}


def test_the_counters_of_dcgm_exporter_are_the_names_of_the_collector() -> None:
    """As it reads them: comments begin with #, and a line has three fields (internal/pkg/counters of its source)."""
    text = (ROOT / "roles/exporters/files/dcgm-counters.csv").read_text()
    fields = [[one.strip() for one in line.split(",")] for line in text.splitlines() if not line.startswith("#")]
    assert fields == [[name, kind, about] for name, (kind, about) in metrics_gpu.DCGM.items()]


def test_where_dcgm_tells_it_nobody_else_does(read: Read) -> None:
    text = read(H100, "others")
    assert "DCGM_FI_DEV" not in text.replace("DCGM_FI_DRIVER_VERSION", "")
    assert values(text, "gpuhosts_gpus_found") == [2]


def test_what_a_card_does_not_know_is_not_told(read: Read) -> None:
    text = read(H100 + "\n[gpu *]\nunsupported = temperature power_w memory_mib ecc_errors\n")
    assert values(text, "DCGM_FI_DEV_GPU_TEMP") == []
    assert values(text, "DCGM_FI_DEV_FB_FREE") == []
    assert values(text, "DCGM_FI_DEV_GPU_UTIL") == [0, 0]


def test_a_lost_gpu_is_missed(read: Read) -> None:
    text = read(H100 + "\n[gpu 1]\nlost = yes\n")
    assert (values(text, "gpuhosts_gpus_expected"), values(text, "gpuhosts_gpus_found")) == ([2], [1])
    assert len(values(text, "DCGM_FI_DEV_GPU_TEMP")) == 1


def test_a_gpu_that_has_left_the_bus_is_missed_as_well(read: Read, root: Path) -> None:
    facts = root / "etc/ansible/facts.d"
    facts.mkdir(parents=True)
    (facts / "gpuhosts_gpus.fact").write_text(json.dumps({"version": 1, "gpus": [{}, {}, {}]}))
    assert values(read(H100), "gpuhosts_gpus_expected") == [3]
    (facts / "gpuhosts_gpus.fact").write_text("[]")
    assert values(read(H100), "gpuhosts_gpus_expected") == [2]


def test_without_nvml_no_gpu_is_found_and_the_versions_say_why(read: Read, root: Path) -> None:
    library = root / "usr/lib/x86_64-linux-gnu"
    library.mkdir(parents=True)
    (library / "libnvidia-ml.so.580.178.04").touch()
    (library / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.178.04")
    text = read(H100.replace("gpus = 2", "gpus = 2\nfault = version_mismatch"))
    assert (values(text, "gpuhosts_gpus_expected"), values(text, "gpuhosts_gpus_found")) == ([2], [0])
    ((labels, value),) = samples(text, "gpuhosts_driver_mismatch")
    assert (labels, value) == ({"loaded": "580.95.05", "library": "580.178.04"}, 1)


def test_fabric_manager_of_another_version_is_told(read: Read, root: Path) -> None:
    program = root / "usr/bin/nv-fabricmanager"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'Fabric Manager version is : 580.159.03'\n")
    program.chmod(0o755)
    ((labels, value),) = samples(read(H100), "gpuhosts_fabric_manager_mismatch")
    assert (labels, value) == ({"driver": "580.95.05", "fabric_manager": "580.159.03"}, 1)


def test_a_host_that_never_had_a_gpu_tells_nothing(read: Read, root: Path) -> None:
    for path in root.glob("sys/bus/pci/devices/*/vendor"):
        path.write_text("0x8086\n")
    assert read(H100).strip() == ""


@pytest.mark.parametrize(
    ("cgroup", "orphan"),
    [
        ("0::/system.slice/system-vllm.slice/vllm@tiny-1.service\n", False),
        (f"0::/system.slice/docker-{'0a' * 32}.scope\n", False),
        ("0::/user.slice/user-0.slice/session-3.scope\n", True),
        ("0::/system.slice/jupyter.service\n", True),
        ("", False),
    ],
)
def test_whose_memory_is_nobodys(cgroup: str, orphan: bool) -> None:
    assert metrics_gpu.is_orphan(cgroup) is orphan


def test_memory_held_outside_of_engines_is_told(read: Read, root: Path) -> None:
    for pid, cgroup in {7: "0::/system.slice/jupyter.service", 8: "0::/x/vllm@tiny-1.service"}.items():
        (root / f"proc/{pid}").mkdir(parents=True)
        (root / f"proc/{pid}/cgroup").write_text(f"{cgroup}\n")
    text = read(H100 + "\n[gpu 0]\nprocess = 7 100\nprocess = 8 200\nprocess = 9 400\n")
    assert values(text, "gpuhosts_gpu_orphan_bytes") == [100 * 2**20, 0]
