"""GPUs as the real pynvml reads them from a pretended driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import BindingMissingError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import nvml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu, GpuHost, GpuProcess, MigDevice

from tests.unit.plugins.conftest import ROOT, ReadGpus

Read = Callable[..., dict[str, Any]]


@pytest.fixture
def read(read_gpus: ReadGpus) -> Read:
    """Read a host of tests/fake_nvml/hosts, or one that a text describes."""
    return lambda name, text="": read_gpus(text or (ROOT / f"tests/fake_nvml/hosts/{name}.conf").read_text())


def test_everything_about_a_gpu(read: Read) -> None:
    facts = read("2xh100")
    assert facts == {
        "reason": None,
        "driver_version": "580.95.05",
        "module_version": facts["module_version"],  # of the machine that runs the test
        "cuda_version": "13.0",
        "link": "nvlink",
        "domains": [[0, 1]],
        "rdma": facts["rdma"],
        "gpus": facts["gpus"],
    }
    assert facts["gpus"][1] == {
        "index": 1,
        "lost": False,
        "uuid": "GPU-00000000-0000-0000-0000-000000000001",
        "pci_bus_id": "00000000:11:00.0",
        "name": "NVIDIA H100 80GB HBM3",
        "total_gib": 79.647,
        "reserved_gib": 0.548,
        "free_gib": 79.1,
        "compute_capability": "9.0",
        "mig_enabled": False,
        "mig_devices": [],
        "ecc_enabled": True,
        "ecc_pending": True,
        "persistence_enabled": True,
        "power_limit_w": 700.0,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "numa_node": 1,
        "fabric_state": None,
        "processes": [],
    }
    assert GpuHost.from_dict(facts).to_dict() == {
        **facts,
        "domains": ((0, 1),),
        "gpus": tuple({**gpu, "mig_devices": (), "processes": ()} for gpu in facts["gpus"]),
        "rdma": (),
    }


@pytest.mark.parametrize(
    ("name", "link", "domains"),
    [
        ("8xh100-nvswitch", "nvlink", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("2xl40s", "pcie", [[0, 1]]),
        ("8xl40s-pcie", "pcie", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("t4", "host", [[0]]),
        ("lost", "host", [[0]]),
    ],
)
def test_gpus_that_may_share_an_instance(read: Read, name: str, link: str, domains: list[list[int]]) -> None:
    facts = read(name)
    assert (facts["link"], facts["domains"]) == (link, domains)


def test_gpus_without_any_link_are_of_one_host(read: Read) -> None:
    text = "[host]\ngpus = 3\n" + "".join(f"[gpu {index}]\npcie_root = {index}\n" for index in range(3))
    facts = read("loose", text)
    assert (facts["link"], facts["domains"]) == ("host", [[0, 1, 2]])


def test_what_a_card_does_not_support_is_null_and_the_rest_is_there(read: Read) -> None:
    fields = "memory_mib power_limit_w pcie_generation numa ecc persistence mig fabric_state process p2p pcie_root"
    facts = read("poor", f"[host]\ngpus = 2\n[gpu *]\nname = Card\ncompute_capability = 8.9\nunsupported = {fields}\n")
    gpu = facts["gpus"][0]
    assert (gpu["name"], gpu["compute_capability"]) == ("Card", "8.9")
    for name in ("total_gib", "reserved_gib", "free_gib", "power_limit_w", "pcie_generation", "numa_node"):
        assert gpu[name] is None
    for name in ("ecc_enabled", "persistence_enabled", "mig_enabled", "fabric_state"):
        assert gpu[name] is None
    assert gpu["processes"] == []
    assert facts["link"] == "host"


def test_a_lost_gpu_is_told_and_the_others_are_read(read: Read) -> None:
    here, gone = read("lost")["gpus"]
    assert (here["lost"], here["name"]) == (False, "NVIDIA L40S")
    assert here["processes"] == [{"pid": 4242, "used_gib": 20.0}]
    assert (gone["index"], gone["lost"], gone["name"]) == (1, True, None)


def test_mig_and_its_slices(read: Read) -> None:
    whole, cut = read("mig")["gpus"]
    assert (whole["mig_enabled"], whole["mig_devices"]) == (False, [])
    assert cut["mig_enabled"]
    assert cut["mig_devices"] == [
        {
            "uuid": "MIG-00000000-0000-0000-0001-000000000000",
            "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
            "total_gib": 9.625,
        },
        {
            "uuid": "MIG-00000000-0000-0000-0001-000000000001",
            "name": "NVIDIA H100 80GB HBM3 MIG 4g.40gb",
            "total_gib": 39.25,
        },
    ]


@pytest.mark.parametrize(("state", "name"), [(0, None), (1, "not_started"), (2, "in_progress"), (3, "completed")])
def test_the_fabric(read: Read, state: int, name: str | None) -> None:
    assert read("8xh100-nvswitch")["gpus"][0]["fabric_state"] == "completed"
    facts = read("fabric", f"[host]\ngpus = 1\n[gpu 0]\nfabric_state = {state}\n")
    assert facts["gpus"][0]["fabric_state"] == name


def test_bridges_join_pairs(read: Read) -> None:
    pairs = "".join(f"[gpu {index}]\nnvlink_domain = {index // 2}\nnvlinks = 4\n" for index in range(4))
    facts = read("bridges", f"[host]\ngpus = 4\n{pairs}")
    assert (facts["link"], facts["domains"]) == ("nvlink", [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no-driver", "the NVIDIA driver is installed, but its kernel module is not loaded (NVML error 9)"),
        (
            "mismatch",
            (
                "the NVIDIA library and the loaded kernel module are of different versions: reboot the host"
                " (NVML error 18)"
            ),
        ),
    ],
)
def test_a_driver_that_does_not_answer_is_a_reason(read: Read, name: str, reason: str) -> None:
    facts = read(name)
    assert (facts["gpus"], facts["reason"], facts["domains"]) == ([], reason, [])


def test_a_driver_without_gpus(read: Read) -> None:
    assert read("none", "[host]\ngpus = 0\n")["reason"] == "the driver finds no GPU"


class NotFoundError(Exception):
    value = 12


class LostError(Exception):
    value = 15


def stand_in(**functions: Any) -> SimpleNamespace:
    """A pynvml of which only this much is there."""
    numbers = {
        "NVML_ERROR_LIBRARY_NOT_FOUND": 12,
        "NVML_ERROR_DRIVER_NOT_LOADED": 9,
        "NVML_ERROR_LIB_RM_VERSION_MISMATCH": 18,
        "NVML_ERROR_GPU_IS_LOST": 15,
    }
    defaults = {"NVMLError": Exception, "nvmlInit": lambda: None, "nvmlShutdown": lambda: None}
    return SimpleNamespace(**numbers, **{**defaults, **functions})


def test_no_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise NotFoundError

    monkeypatch.setitem(sys.modules, "pynvml", stand_in(nvmlInit=init))
    reason = "libnvidia-ml.so.1 is not there: no NVIDIA driver is installed (NVML error 12)"
    assert nvml.read_host().reason == reason


def test_an_old_binding_tells_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = stand_in(
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _handle: "Card",
    )
    monkeypatch.setitem(sys.modules, "pynvml", binding)
    assert nvml.read_host().gpus == (Gpu(index=0, name="Card"),)


def test_a_gpu_that_cannot_be_opened_is_as_good_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_power(index: int) -> int:
        if index:
            raise NotFoundError
        return index

    functions = {"nvmlDeviceGetCount": lambda: 2, "nvmlDeviceGetHandleByIndex": no_power}
    monkeypatch.setitem(sys.modules, "pynvml", stand_in(**functions))
    host = nvml.read_host()
    assert [gpu.lost for gpu in host.gpus] == [False, True]
    assert host.domains == ((0,),)


def test_a_gpu_that_is_lost_meanwhile_has_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_arguments: Any) -> None:
        raise LostError

    binding = stand_in(
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetP2PStatus=lost,
        nvmlDeviceGetTopologyCommonAncestor=lost,
    )
    monkeypatch.setitem(sys.modules, "pynvml", binding)
    assert nvml.read_host().link == "host"


def test_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(BindingMissingError):
        nvml.read_host()


def test_the_binding_travels(tmp_path: Path) -> None:
    packed = nvml.pack_binding()
    assert packed is not None
    program = f"""
import sys
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import unpack_binding
unpack_binding(sys.stdin.read(), {str(tmp_path)!r})
import pynvml
print(pynvml.__file__, pynvml.NVML_ERROR_GPU_IS_LOST)
"""
    command = [sys.executable, "-S", "-c", program]  # -S: without the packages of this environment
    environment = {"PYTHONPATH": str(ROOT / "collections")}
    run = subprocess.run(command, input=packed, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == f"{tmp_path}/pynvml.py 15\n"


@pytest.mark.parametrize("content", [None, {"pynvml/__init__.py": "from .nvml import *"}])
def test_without_a_binding_that_can_be_sent_nothing_is_sent(
    content: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (content or {}).items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert nvml.pack_binding() is None


def test_facts_of_later_versions_are_read() -> None:
    facts = {
        "gpus": [
            {
                "index": 0,
                "smell": "burnt",
                "processes": [{"pid": 1, "used_gib": None}],
                "mig_devices": [{"uuid": "MIG-1", "name": None, "total_gib": 9.5}],
            }
        ],
        "weather": "fine",
    }
    gpu = Gpu(index=0, processes=(GpuProcess(pid=1),), mig_devices=(MigDevice(uuid="MIG-1", total_gib=9.5),))
    assert GpuHost.from_dict(facts) == GpuHost(gpus=(gpu,))


@pytest.mark.parametrize(
    ("loaded", "answer"),
    [
        ("580.178.04", "0 580.178.04"),
        ("580.159.03", "18 "),
        (None, "9 "),
    ],
)
def test_a_library_with_a_version_in_its_name_wants_that_module(
    fake_nvml: Path, tmp_path: Path, loaded: str | None, answer: str
) -> None:
    shutil.copy(fake_nvml / "libnvidia-ml.so.1", tmp_path / "libnvidia-ml.so.580.178.04")
    link = tmp_path / "libnvidia-ml.so.1"
    link.symlink_to("libnvidia-ml.so.580.178.04")
    module = tmp_path / "version"
    if loaded:
        module.write_text(f"{loaded}\n")
    program = (
        "import ctypes, sys; nvml = ctypes.CDLL(sys.argv[1]); version = ctypes.create_string_buffer(80); "
        "code = nvml.nvmlInit_v2(); nvml.nvmlSystemGetDriverVersion(version, 80); print(code, version.value.decode())"
    )
    config = ROOT / "tests/fake_nvml/hosts/2xh100.conf"
    environment = os.environ | {"FAKE_NVML_CONFIG": str(config), "FAKE_NVML_MODULE_VERSION": str(module)}
    command = [sys.executable, "-c", program, str(link)]
    assert subprocess.check_output(command, env=environment, text=True) == f"{answer}\n"
