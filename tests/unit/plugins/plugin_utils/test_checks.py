"""Every check of the doctor, each with the fault that it is there for, put into a host that is healthy otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, DriverPackage, why_reboot
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Disk
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.checks import CHECKS, WARNING
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.checks.record import Host

from tests.unit.plugins.patient import BRIDGE, CDI, LIMITS, MODINFO, UUIDS, Patient

Inject = Callable[[Patient], object]
DISK = Disk("/var/lib/vllm/huggingface/hub", 10.0**6, "model huge")
LIBRARY, DKMS = ("libnvidia-compute", "580.95.05"), ("nvidia-dkms-open", "580.95.05")
SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Codes whose fault keeps NVML from answering, and what then cannot be told.
SILENT = {"driver_missing", "driver_mismatch", "nouveau_loaded", "secure_boot_unsigned", "module_missing"}
NEEDS_NVML = {"cdi_stale", "driver_old", "gpu_fewer"}
GPU_1 = "GPU 1 (00000000:11:00.0)"


def foreign_listener(patient: Patient) -> None:
    patient.process(70, "python3", "session-3.scope")
    patient.listen(70, "10.0.0.1", 8000)


def foreign_process(patient: Patient) -> None:
    patient.process(4242, "python3", "session-3.scope")
    patient.gpu("process", "4242 20480")


def no_driver(patient: Patient) -> None:
    patient.module("")
    patient.packages()
    for path in ("usr/lib/libnvidia-ml.so.1", "var/run/cdi/nvidia.yaml"):
        (patient.root / path).unlink()


def other_module(patient: Patient) -> None:
    patient.module("580.82.07")
    patient.fault("version_mismatch")


def nouveau(patient: Patient) -> None:
    patient.module("")
    patient.write("sys/module/nouveau/version")


def unsigned(patient: Patient) -> None:
    patient.module("")
    patient.write(f"sys/firmware/efi/efivars/{SECURE_BOOT}", b"\x06\0\0\0\x01")


def proprietary_on_blackwell(patient: Patient) -> None:
    patient.write("sys/bus/pci/devices/0000:10:00.0/device", "0x2bb5\n")
    patient.answers["modinfo"] = "version:        580.95.05\nlicense:        NVIDIA\n"
    patient.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05\n")


def fabric_manager(patient: Patient, version: str, state: str = "active") -> None:
    patient.pci("0000:20:00.0", "0x22a3", "0x068000")
    patient.packages(("nvidia-dkms-open", "580.95.05"), ("nvidia-fabricmanager", version))
    patient.answers["systemctl"] = f"{state}\n"


def new_kernel(patient: Patient) -> None:
    patient.write("run/reboot-required", "*** System restart required ***\n")
    patient.write("run/reboot-required.pkgs", "linux-image-6.1.0-42-amd64\nlinux-image-6.1.0-42-amd64\n")


def rdma_without_a_subnet_manager(patient: Patient) -> None:
    for name, text in {"state": "2: INIT", "phys_state": "5: LinkUp", "link_layer": "InfiniBand"}.items():
        patient.write(f"sys/class/infiniband/mlx5_0/ports/1/{name}", f"{text}\n")
    patient.write("sys/class/infiniband/mlx5_1/ports/1/phys_state", "3: Disabled\n")  # without a cable


def no_gpu(patient: Patient) -> None:
    patient.describe("gpus", "0")
    for path in ("sys/bus/pci/devices/0000:10:00.0", "sys/bus/pci/devices/0000:11:00.0"):
        (patient.root / path).unlink()
    (patient.root / "etc/ansible/facts.d/gpuhosts_gpus.fact").unlink()


def old_driver(patient: Patient) -> None:
    patient.describe("driver", "575.57.08")
    patient.module("575.57.08")
    patient.library("575.57.08")
    patient.answers["modinfo"] = MODINFO.format("575.57.08")
    patient.write("var/run/cdi/nvidia.yaml", CDI.format("575.57.08"))


def fabric_in_progress(patient: Patient) -> None:
    patient.gpu("unsupported", "mig")
    patient.gpu("fabric_state", "2")


def slices(patient: Patient) -> None:
    patient.gpu("unsupported", "fabric_state")
    patient.gpu("mig", "yes")


# Code, what is done to the host, and what is then observed.
FAULTS: list[tuple[str, Inject, str]] = [
    ("unreachable", lambda it: it.contact.update(unreachable="Connection refused"), "Connection refused"),
    ("unreadable", lambda it: it.contact.update(unreadable="No Python"), "No Python"),
    ("python_old", lambda it: setattr(it, "python", "3.8.10"), "3.8.10"),
    ("clock_skew", lambda it: setattr(it, "ahead_seconds", -90.0), "s behind the controller"),
    ("clock_unsynchronized", lambda it: it.answers.update(timedatectl="no\n"), "not synchronized"),
    ("port_taken", foreign_listener, "python3 (session-3.scope) listens on 10.0.0.1 port 8000"),
    ("disk_full", lambda it: it.want(disks=(DISK,)), "GiB free at /var/lib/vllm/huggingface/hub"),
    ("reboot_pending", new_kernel, "linux-image-6.1.0-42-amd64 ask for a reboot"),
    ("driver_missing", no_driver, "no libnvidia-ml.so.1"),
    (
        "driver_broken",
        lambda it: it.packages(DKMS, Status="hold ok half-configured"),
        "half installed: nvidia-dkms-open",
    ),
    (
        "driver_mixed",
        lambda it: it.packages(LIBRARY, DKMS, Maintainer="Debian"),
        "from distro: nvidia-dkms-open; from nvidia",
    ),
    ("driver_mismatch", other_module, "library 580.95.05, kernel module 580.82.07"),
    (
        "driver_unheld",
        lambda it: it.packages(LIBRARY, DKMS, Status="install ok installed"),
        "not held: nvidia-dkms-open",
    ),
    ("nouveau_loaded", nouveau, "nouveau is loaded"),
    ("secure_boot_unsigned", unsigned, "Secure Boot, and module 580.95.05 is installed and not loaded"),
    ("module_missing", lambda it: it.module(""), "module 580.95.05 is not loaded (kernel 6.1.0-41-amd64)"),
    ("module_flavour", proprietary_on_blackwell, "the proprietary module"),
    ("fabric_manager_mismatch", lambda it: fabric_manager(it, "580.82.07"), "Fabric Manager 580.82.07"),
    (
        "fabric_manager_down",
        lambda it: fabric_manager(it, "580.95.05", "failed"),
        "fabricmanager.service is not active",
    ),
    ("vllm_python_old", lambda it: it.answers.update({"/usr/bin/python3": "3.10.12\n"}), "3.10.12"),
    ("shm_small", lambda it: it.want(shm_gib=10.0**6), "GiB"),
    ("memlock_low", lambda it: it.write("proc/50/limits", LIMITS.format("65536")), "65536 bytes, with mlx5_0"),
    (
        "engine_not_serving",
        lambda it: it.keeper("waiting", waits_for="rank 1", reason='rank 1: the "engine" ended with status 1'),
        'tiny-1 waiting, for rank 1, the one before ended: rank 1: the "engine" ended with status 1',
    ),
    (
        "cdi_stale",
        lambda it: it.write("var/run/cdi/nvidia.yaml", CDI.format("575.57.08")),
        "/var/run/cdi/nvidia.yaml is of driver 575.57.08",
    ),
    (
        "cdi_duplicate",
        lambda it: it.write("etc/cdi/nvidia.yaml", CDI.format("580.95.05")),
        "/etc/cdi/nvidia.yaml and /var/run/cdi/nvidia.yaml",
    ),
    ("driver_old", old_driver, "driver 575.57.08"),
    ("compute_capability", lambda it: it.gpu("compute_capability", "7.0"), "NVIDIA L40S has compute capability 7.0"),
    ("gpu_none", no_gpu, "no NVIDIA GPU on the PCI bus"),
    ("gpu_undriven", lambda it: it.pci("0000:12:00.0", "0x26b9", "0x030200"), "not driven: 0000:12:00.0"),
    ("gpu_lost", lambda it: it.gpu("lost", "yes"), "GPU 1: lost"),
    ("gpu_fewer", lambda it: it.fact("gpuhosts_gpus", {"gpus": [{"uuid": u} for u in [*UUIDS, "GPU-x"]]}), "2 GPUs"),
    ("pcie_width", lambda it: it.gpu("pcie_width", "8"), f"{GPU_1}: x8 of x16"),
    ("pcie_generation", lambda it: it.gpu("pcie_generation_max", "3"), f"{GPU_1}: generation 3 of 4"),
    ("rdma_inactive", rdma_without_a_subnet_manager, "not active: mlx5_0:1"),
    ("fabric_incomplete", fabric_in_progress, f"{GPU_1}: fabric in_progress"),
    ("orphan_process", foreign_process, f"python3 (process 4242, session-3.scope) on {GPU_1} with 20 GiB"),
    ("acs_enabled", lambda it: it.bridge(control=0b11101), f"redirection by {BRIDGE}"),
    ("iommu_translating", lambda it: it.iommu("DMA-FQ"), "IOMMU groups of type DMA-FQ"),
    ("persistence_off", lambda it: it.gpu("persistence", "no"), f"{GPU_1}: persistence mode off"),
    ("ecc_off", lambda it: it.gpu("ecc", "no"), f"{GPU_1}: ECC off"),
    ("ecc_pending", lambda it: it.gpu("ecc_pending", "no"), f"{GPU_1}: ECC on, off after a reboot"),
    ("mig_enabled", slices, f"{GPU_1}: MIG on"),
]


def test_every_check_has_one_fault_that_it_finds() -> None:
    assert Counter(code for code, _inject, _observed in FAULTS) == Counter(check.code for check in CHECKS)


def test_a_healthy_host_is_well(patient: Patient) -> None:
    verdict = patient.verdict()
    assert (verdict["failures"], verdict["warnings"], verdict["not_judged"]) == ([], [], [])
    assert verdict["ok"]


@pytest.mark.parametrize(("code", "inject", "observed"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_the_fault_is_found_and_no_other(patient: Patient, code: str, inject: Inject, observed: str) -> None:
    inject(patient)

    verdict = patient.verdict()

    (check,) = (check for check in CHECKS if check.code == code)
    (entry,) = verdict["failures"] + verdict["warnings"]
    assert (entry["code"], entry["host"]) == (code, "gpu1")
    assert observed in entry["observed"]
    assert entry["needed"]
    assert "{" not in entry["fix"]
    assert verdict["ok"] == (check.severity == WARNING)
    not_judged = {entry["code"] for entry in verdict["not_judged"]}
    assert not_judged <= (NEEDS_NVML if code in SILENT else set())


def unlink(path: str) -> Inject:
    return lambda patient: (patient.root / path).unlink()


def owner_unknown(patient: Patient) -> None:
    (patient.root / "proc/50/fd/7").unlink()


@pytest.mark.parametrize(
    ("codes", "hide"),
    [
        (["clock_unsynchronized"], lambda it: it.answers.pop("timedatectl")),
        (["port_taken"], unlink("proc/net/tcp")),
        (["port_taken"], owner_unknown),
        (["disk_full"], lambda it: it.want(disks=(Disk("/cache", None, "model a"),))),
        (["memlock_low"], lambda it: [it.write(f"proc/{pid}/limits") for pid in (1, 50)] + [it.write("proc/1/status")]),
        (["acs_enabled"], lambda it: it.bridge(0, size=64)),
        (["iommu_translating"], lambda it: it.iommu("")),
        (["driver_old"], lambda it: it.want(vllm_version="nightly")),
    ],
)
def test_what_cannot_be_told_is_said(patient: Patient, codes: list[str], hide: Inject) -> None:
    hide(patient)
    verdict = patient.verdict()
    assert (verdict["failures"], verdict["warnings"]) == ([], [])
    assert verdict["not_judged"] == [{"code": code, "host": "gpu1"} for code in codes]


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.describe("cuda", "12.8"),
        lambda it: it.gpu("pcie_generation", "1"),  # idle
        lambda it: it.gpu("process", "50 20480"),  # of our own engine
        lambda it: it.gpu("process", "4243 20480"),  # that has ended since
        lambda it: it.fact("gpuhosts_gpus", {"gpus": [{"uuid": "GPU-before"}]}),  # one more than before
        lambda it: (it.root / "etc/ansible/facts.d/gpuhosts_gpus.fact").unlink(),
        lambda it: it.listen(60, "10.0.0.9", 8000),  # another address of the host
        lambda it: (it.want(several_gpus=False, shm_gib=0.0), it.bridge(0b1100), it.iommu("DMA")),
        lambda it: (
            it.gpus,
            it.bridge(0b1100),
            it.iommu("DMA"),
            it.gpu("nvlink_domain", "0", 0),
            it.gpu("nvlink_domain", "0"),
        ),
        lambda it: (
            it.write("proc/50/limits", LIMITS.format("1")),
            (it.root / "sys/class/infiniband").rename(it.root / "x"),
        ),
        lambda it: setattr(it, "ahead_seconds", -4.0),
        lambda it: (it.want(vllm_python="auto"), it.answers.update({"/usr/bin/python3": "3.9.21\n"})),
    ],
)
def test_what_is_no_fault(patient: Patient, change: Inject) -> None:
    change(patient)
    verdict = patient.verdict()
    assert (verdict["failures"], verdict["warnings"], verdict["not_judged"]) == ([], [], [])


def test_a_port_in_the_hands_of_another_unit_on_any_address_is_taken(patient: Patient) -> None:
    patient.process(60, "nginx", "nginx.service")
    patient.listen(60, str(ip_address(0)), 8000)
    (failure,) = patient.verdict()["failures"]
    assert failure["fix"] == "Stop nginx (process 60, nginx.service) on gpu1, or give the service another port."


def test_a_driver_that_waits_for_a_reboot(patient: Patient) -> None:
    patient.answers["modinfo"] = MODINFO.format("580.126.09")
    (warning,) = patient.verdict()["warnings"]
    assert warning["code"] == "reboot_pending"
    assert warning["observed"] == "kernel module 580.95.05 is loaded, 580.126.09 is installed"


@pytest.mark.parametrize(
    ("driver", "fix"),
    [
        ({"installed_version": "580.95.05"}, "On gpu1: `modprobe nvidia`."),
        (
            {"module_versions": {"6.1.0-40-amd64": "580.95.05"}, "kernels": ("6.1.0-40-amd64", "6.1.0-41-amd64")},
            "On gpu1: install the headers of kernel 6.1.0-41-amd64 and run `dkms autoinstall -k 6.1.0-41-amd64`.",
        ),
        (
            {
                "module_versions": {"6.1.0-40-amd64": "580.95.05"},
                "packages": (
                    DriverPackage("linux-modules-nvidia-580-server-open-amd64", "6.1.0.40.40", "distro"),
                    DriverPackage("linux-modules-nvidia-580-server-open-6.1.0-40-amd64", "6.1.0-40.40", "distro"),
                ),
                "kernels": ("6.1.0-40-amd64", "6.1.0-41-amd64"),
            },
            "On gpu1: `apt-get install linux-modules-nvidia-580-server-open-6.1.0-41-amd64`.",
        ),
        (
            {"module_versions": {"6.1.0-42-amd64": "580.95.05"}, "kernels": ("6.1.0-41-amd64", "6.1.0-42-amd64")},
            "On gpu1: reboot, because kernel 6.1.0-42-amd64 has the module.",
        ),
    ],
)
def test_a_kernel_without_its_module_has_one_remedy(driver: dict[str, Any], fix: str) -> None:
    """A reboot is one only where it brings another kernel."""
    found = Driver(kernel="6.1.0-41-amd64", library_version="580.95.05", **driver)
    reason = why_reboot(found)
    host = Host("gpu1", driver=replace(found, reboot_pending=bool(reason), reboot_reason=reason))
    checks = [check for check in CHECKS if check.code in ("module_missing", "reboot_pending")]

    fixes = [check.entry(host, fault)["fix"] for check in checks for fault in check.judge(host) or ()]

    assert fixes == [fix]


def test_nothing_else_is_judged_where_the_host_cannot_be_read(patient: Patient) -> None:
    patient.python = "3.8.10"
    patient.describe("compute_capability", "6.1")
    assert [failure["code"] for failure in patient.verdict()["failures"]] == ["python_old"]


def test_room_on_one_file_system_is_counted_once(patient: Patient) -> None:
    free = patient.host().machine.spaces[0].free_gib
    patient.want(disks=tuple(Disk(f"/cache/{name}", free * 0.6, name) for name in "ab"))
    (failure,) = patient.verdict()["failures"]
    assert failure["code"] == "disk_full"
    assert failure["observed"].endswith("free at /cache/a and /cache/b")
    assert "for a, " in failure["needed"]


def test_files_that_a_specification_names_and_that_are_gone(patient: Patient) -> None:
    (patient.root / "dev/nvidia0").unlink()
    (failure,) = patient.verdict()["failures"]
    assert (failure["code"], failure["needed"]) == ("cdi_stale", "driver 580.95.05")
    assert failure["observed"] == "/var/run/cdi/nvidia.yaml names files that are not there: /dev/nvidia0"
