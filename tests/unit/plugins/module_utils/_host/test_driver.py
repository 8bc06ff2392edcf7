"""The driver as it is read from the files of a host, and what is decided from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import (
    Driver,
    Fabric,
    PciGpu,
    needed_companions,
    read_driver,
    supported_modules,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.pci import PciDevice, generation

KERNEL = "6.1.0-41-amd64"
OLD, NEW = "580.159.03", "580.178.04"
OPEN = (
    f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {OLD}  Release Build  (dvs-builder@U22)  Sep 23 2026\n"
)
PROPRIETARY = (
    f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {OLD}  Tue Sep 23 10:11:16 UTC 2026\nGCC version: gcc 12\n"
)
NVIDIA = "cudatools <cudatools@nvidia.com>"
DEBIAN = "Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
VALIDATION_OFF = "sys/firmware/efi/efivars/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"


class Host:
    """The files of a host, and the programs that are asked on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modinfo: dict[tuple[str, str], str] = {}  # by kernel and name of the module
        self.rpm: list[str] = []

    def write(self, path: str, content: str | bytes = "") -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def module(
        self, version: str, license_name: str = "Dual MIT/GPL", name: str = "nvidia", kernel: str = KERNEL
    ) -> None:
        """A kernel module on disk."""
        (self.root / "lib/modules" / kernel).mkdir(parents=True, exist_ok=True)
        self.modinfo[kernel, name] = (
            f"filename:       /lib/modules/{kernel}/updates/dkms/{name}.ko\n"
            f"import_ns:      DMA_BUF\nversion:        {version}\nlicense:        {license_name}\nsrcversion:     1\n"
        )

    def loaded(self, text: str = OPEN, version: str = OLD) -> None:
        self.write("sys/module/nvidia/version", f"{version}\n")
        self.write("proc/driver/nvidia/version", text)

    def library(self, version: str, directory: str = "usr/lib/x86_64-linux-gnu") -> None:
        self.write(f"{directory}/libnvidia-ml.so.{version}")
        (self.root / directory / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{version}")

    def pci(self, bus_id: str, device: str, device_class: str = "0x030200", vendor: str = "0x10de") -> None:
        for name, number in {"vendor": vendor, "device": device, "class": device_class}.items():
            self.write(f"sys/bus/pci/devices/{bus_id}/{name}", f"{number}\n")

    def dpkg(self, *packages: tuple[str, str, str, str]) -> None:
        """Packages by name, version, maintainer and status."""
        paragraphs = [
            f"Package: {name}\nStatus: {status}\nPriority: optional\nMaintainer: {maintainer}\nVersion: {version}\n"
            "Description: something\n more of it\n"
            for name, version, maintainer, status in packages
        ]
        self.write("var/lib/dpkg/status", "\n".join(paragraphs))

    def read(self) -> Driver:
        def run(command: Sequence[str]) -> str:
            if command[0] == "modinfo":
                assert command[1:4] == ["--basedir", str(self.root), "--set-version"]
                return self.modinfo.get((command[4], command[5]), "")
            return "".join(f"{line}\n" for line in self.rpm)

        return read_driver(self.root, run, KERNEL)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_with_nothing(host: Host) -> None:
    reason = "every NVIDIA GPU since Turing runs with the open kernel module, which NVIDIA recommends"
    assert host.read() == Driver(kernel=KERNEL, secure_boot=False, modules_reason=reason)


def test_a_host_that_is_as_it_should_be(host: Host) -> None:
    host.module(OLD)
    host.loaded()
    host.library(OLD)
    host.pci("0000:1b:00.0", "0x2330")
    host.dpkg(
        ("libnvidia-ml1", f"{OLD}-1", NVIDIA, "hold ok installed"),
        ("nvidia-fabricmanager", f"{OLD}-1", NVIDIA, "hold ok installed"),
    )
    driver = host.read()
    assert (driver.loaded_version, driver.installed_version, driver.library_version) == (OLD, OLD, OLD)
    assert (driver.loaded_open, driver.installed_open) == (True, True)
    assert (driver.source, driver.held, driver.fabric_manager_version) == ("nvidia", True, OLD)
    assert not driver.reboot_pending
    assert driver.pci_gpus == (PciGpu("0000:1b:00.0", "0x2330", "hopper"),)


def test_the_record_is_plain_data(host: Host) -> None:
    host.pci("0000:1b:00.0", "0x2330")
    fact = host.read().to_dict()
    assert fact["pci_gpus"] == ({"bus_id": "0000:1b:00.0", "device_id": "0x2330", "generation": "hopper"},)
    assert fact["fabric"]["manager"] is False


# ---- loaded, installed, pending ----


@pytest.mark.parametrize(("text", "is_open"), [(OPEN, True), (PROPRIETARY, False)])
def test_the_driver_says_which_flavour_is_loaded(host: Host, text: str, is_open: bool) -> None:
    host.write("proc/driver/nvidia/version", text)
    driver = host.read()
    assert (driver.loaded_version, driver.loaded_open) == (OLD, is_open)


@pytest.mark.parametrize(("taint", "is_open"), [("OE", True), ("POE", False)])
def test_without_that_the_taint_of_the_module_tells(host: Host, taint: str, is_open: bool) -> None:
    host.write("sys/module/nvidia/version", f"{OLD}\n")
    host.write("sys/module/nvidia/taint", f"{taint}\n")
    assert host.read().loaded_open is is_open


@pytest.mark.parametrize(
    ("name", "license_name", "is_open"),
    [
        ("nvidia", "Dual MIT/GPL", True),
        ("nvidia-current", "NVIDIA", False),
        ("nvidia-current-open", "Dual MIT/GPL", True),
    ],
)
def test_debians_own_module_has_another_name(host: Host, name: str, license_name: str, is_open: bool) -> None:
    host.module("535.261.03", license_name, name)
    driver = host.read()
    assert (driver.installed_version, driver.installed_open) == ("535.261.03", is_open)


def test_a_newer_module_on_disk_waits_for_a_reboot(host: Host) -> None:
    host.loaded()
    host.module(NEW)
    host.library(NEW)
    driver = host.read()
    assert driver.reboot_pending
    assert driver.reboot_reason == f"kernel module {OLD} is loaded, {NEW} is installed"


def test_a_library_of_another_version_waits_for_a_reboot_even_if_the_module_is_not_to_be_found(host: Host) -> None:
    host.loaded()
    host.library(NEW)
    assert "error 18" in (host.read().reboot_reason or "")


def test_another_flavour_of_the_same_version_waits_for_a_reboot(host: Host) -> None:
    host.loaded(PROPRIETARY)
    host.module(OLD)
    assert host.read().reboot_reason == "the proprietary kernel module is loaded, the open one is installed"


def test_a_module_for_another_kernel_waits_for_that_kernel(host: Host) -> None:
    host.module(NEW, kernel="6.1.0-42-amd64")
    driver = host.read()
    assert driver.installed_version is None
    assert driver.module_versions == {"6.1.0-42-amd64": NEW}
    assert driver.reboot_reason == f"kernel {KERNEL} runs and has no NVIDIA module; there is one for 6.1.0-42-amd64"


def test_a_module_that_is_not_loaded_yet_needs_no_reboot(host: Host) -> None:
    host.pci("0000:1b:00.0", "0x2330")
    host.module(NEW)
    host.library(NEW)
    assert not host.read().reboot_pending


def test_nouveau_holds_the_gpus_until_a_reboot(host: Host) -> None:
    (host.root / "sys/module/nouveau").mkdir(parents=True)
    host.pci("0000:1b:00.0", "0x2330")
    driver = host.read()
    assert (driver.nouveau_loaded, driver.reboot_pending) == (True, False)  # nothing is installed that could take over
    host.module(NEW)
    assert host.read().reboot_reason == "nouveau is loaded and holds the GPUs"


# ---- library and Secure Boot ----


@pytest.mark.parametrize("directory", ["usr/lib/x86_64-linux-gnu", "usr/lib64"])
def test_the_library_tells_its_version_by_its_file_name(host: Host, directory: str) -> None:
    host.library(OLD, directory)
    assert host.read().library_version == OLD


def test_a_library_without_a_version_in_its_name_tells_none(host: Host) -> None:
    host.write("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    assert host.read().library_version is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({SECURE_BOOT: 1}, True),
        ({SECURE_BOOT: 0}, False),
        ({SECURE_BOOT: 1, VALIDATION_OFF: 1}, False),
        ({SECURE_BOOT: 1, VALIDATION_OFF: 0}, True),
        ({"sys/firmware/efi/runtime": 1}, None),
    ],
)
def test_secure_boot_is_what_the_firmware_says(host: Host, variables: dict[str, int], expected: bool | None) -> None:
    for path, value in variables.items():
        host.write(path, bytes([6, 0, 0, 0, value]))
    assert host.read().secure_boot is expected


# ---- packages ----


def test_only_packages_of_the_driver_count(host: Host) -> None:
    installed = "install ok installed"
    host.dpkg(
        ("libcuda1", f"{OLD}-1", NVIDIA, installed),
        ("nvidia-imex", f"{OLD}-1", NVIDIA, installed),
        ("libnvidia-container1", "1.20.1-1", NVIDIA, installed),
        ("nvidia-driver-pinning-580", "580-1", NVIDIA, installed),
        ("nvidia-installer-cleanup", "20220217+3~deb12u1", DEBIAN, installed),
        ("cuda-compat-13-0", f"{OLD}-1", NVIDIA, installed),
        ("datacenter-gpu-manager-4-cuda13", "1:4.6.0", NVIDIA, installed),
        ("nvidia-smi", f"{OLD}-1", NVIDIA, "deinstall ok config-files"),
        ("nginx", "1.22.1-9", "Debian Nginx Maintainers <nginx@example.com>", installed),
    )
    driver = host.read()
    assert [package.name for package in driver.packages] == ["libcuda1", "nvidia-imex"]
    assert driver.companions == {"nvidia-imex": OLD}
    assert not driver.held


def test_packages_of_both_origins_are_mixed(host: Host) -> None:
    host.dpkg(("libcuda1", f"{OLD}-1", NVIDIA, "install ok installed"))
    assert host.read().source == "nvidia"
    host.dpkg(("libcuda1", "535.261.03-1~deb12u1", DEBIAN, "install ok installed"))
    assert host.read().source == "distro"
    host.write("usr/bin/nvidia-uninstall")
    assert host.read().source == "mixed"


def test_the_run_installer_is_a_source_of_its_own(host: Host) -> None:
    host.write("usr/bin/nvidia-uninstall")
    assert host.read().source == "runfile"


def test_a_package_that_dpkg_did_not_finish_is_told(host: Host) -> None:
    host.dpkg(("nvidia-kernel-open-dkms", f"{OLD}-1", NVIDIA, "install ok half-configured"))
    assert [package.configured for package in host.read().packages] == [False]


def test_rpms_their_packager_and_their_locks(host: Host) -> None:
    (host.root / "var/lib/rpm").mkdir(parents=True)
    host.write(
        "etc/dnf/plugins/versionlock.list", f"# comment\nnvidia-driver-cuda-3:{OLD}-1.el9.*\nlibnvidia-ml*-{OLD}-*.*\n"
    )
    host.rpm = [
        f"nvidia-driver-cuda\t3\t{OLD}-1.el9\tx86_64\tNVIDIA",
        f"libnvidia-ml\t3\t{OLD}-1.el9\tx86_64\tNVIDIA",
        f"nvidia-fabric-manager\t0\t{NEW}-1\tx86_64\t(none)",
        "bash\t0\t5.1.8-9.el9\tx86_64\tRocky Enterprise Software Foundation",
    ]
    driver = host.read()
    assert [(package.name, package.held) for package in driver.packages] == [
        ("nvidia-driver-cuda", True),
        ("libnvidia-ml", True),
        ("nvidia-fabric-manager", False),
    ]
    assert (driver.source, driver.fabric_manager_version) == ("nvidia", NEW)


def test_rpms_of_a_community_repository_are_the_distributions(host: Host) -> None:
    (host.root / "usr/lib/sysimage/rpm").mkdir(parents=True)
    host.rpm = [f"xorg-x11-drv-nvidia-cuda-libs\t3\t{OLD}-1.fc41\tx86_64\tRPM Fusion"]
    assert host.read().source == "distro"


# ---- the bus ----


@pytest.mark.parametrize(
    ("device", "name", "expected"),
    [
        (0x0FC6, "GTX 650", None),
        (0x13F2, "Tesla M60", "maxwell"),
        (0x15F8, "P100", "pascal"),
        (0x1B38, "P40", "pascal"),
        (0x1DB6, "V100", "volta"),
        (0x1EB8, "T4", "turing"),
        (0x2184, "GTX 1660", "turing"),
        (0x20B5, "A100 80GB PCIe", "ampere"),
        (0x20F1, "A100 PCIe", "ampere"),
        (0x2236, "A10", "ampere"),
        (0x25B6, "A16", "ampere"),
        (0x2330, "H100 SXM", "hopper"),
        (0x2331, "H100 PCIe", "hopper"),
        (0x2335, "H200", "hopper"),
        (0x2342, "GH200", "hopper"),
        (0x2684, "RTX 4090", "ada"),
        (0x26B9, "L40S", "ada"),
        (0x27B8, "L4", "ada"),
        (0x2901, "B200", "blackwell"),
        (0x2BB5, "RTX PRO 6000", "blackwell"),
        (0x2E12, "GB10", "blackwell"),
        (0x31C2, "GB300", "blackwell"),
        (0x3500, "newer than the table", None),
    ],
)
def test_generation_by_device_number(device: int, name: str, expected: str | None) -> None:
    assert generation(device) == expected, name


def test_only_gpus_and_switches_of_nvidia_count(host: Host) -> None:
    host.pci("0000:1b:00.0", "0x2330")
    host.pci("0000:05:00.0", "0x22a3", "0x068000")
    host.pci("0000:06:00.0", "0x22ba", "0x040300")  # the sound of a GPU
    host.pci("0000:00:02.0", "0x2330", "0x030000", vendor="0x8086")
    host.write("sys/bus/pci/devices/0000:07:00.0/vendor", "0x10de\n")  # half gone
    driver = host.read()
    assert [gpu.bus_id for gpu in driver.pci_gpus] == ["0000:1b:00.0"]
    assert driver.nvswitches == 1


@pytest.mark.parametrize(
    ("generations", "expected"),
    [
        ([], ("open", "proprietary")),
        (["hopper", "ada"], ("open", "proprietary")),
        ([None], ("open", "proprietary")),
        (["volta"], ("proprietary",)),
        (["blackwell"], ("open",)),
        (["turing", "volta"], ("proprietary",)),
        (["blackwell", "pascal"], ()),
    ],
)
def test_flavour_by_generation(generations: list[str | None], expected: tuple[str, ...]) -> None:
    flavours, reason = supported_modules(PciGpu("0000:01:00.0", "0x0000", one) for one in generations)
    assert flavours == expected
    for name in {"volta", "pascal", "blackwell"} & set(generations):
        assert name.capitalize() in reason


def test_grace_hopper_runs_with_the_open_module_only() -> None:
    flavours, reason = supported_modules([PciGpu("0009:01:00.0", "0x2342", "hopper")])
    assert flavours == ("open",)
    assert "Grace Hopper" in reason


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([("0x2331", False)], (False, False, False)),
        ([("0x2330", False), ("0x22a3", True), ("0x22a3", True)], (True, False, False)),
        ([("0x2901", False)], (True, True, False)),
        ([("0x2941", False)], (False, False, True)),
    ],
)
def test_companions_by_what_is_on_the_bus(devices: list[tuple[str, bool]], expected: tuple[bool, bool, bool]) -> None:
    fabric = needed_companions(PciDevice("0000:01:00.0", *device) for device in devices)
    assert (fabric.manager, fabric.subnet_manager, fabric.imex) == expected
    assert (fabric == Fabric()) == (expected == (False, False, False))


# ---- a kernel without its module ----


@pytest.mark.parametrize(
    ("with_module", "without", "pending"),
    [
        (["6.1.0-42-amd64"], [KERNEL], True),  # the next boot brings it
        (["6.1.0-40-amd64"], [KERNEL], False),  # the newest kernel runs: no boot ever brings another one
        (["6.1.0-9-amd64"], [KERNEL, "6.1.0-42-amd64"], False),  # the next one has none either
        (["6.1.0-40-amd64"], [], True),  # the running kernel was removed
    ],
)
def test_a_kernel_without_its_module_is_only_rebooted_where_that_helps(
    host: Host, with_module: list[str], without: list[str], pending: bool
) -> None:
    host.library(NEW)
    for kernel in with_module:
        host.module(NEW, kernel=kernel)
    for kernel in without:
        (host.root / "lib/modules" / kernel).mkdir(parents=True)
    assert host.read().reboot_pending is pending


def test_kernels_are_told_from_old_to_new(host: Host) -> None:
    for kernel in ("6.12.9-amd64", "6.1.0-9-amd64", "6.1.0-41-amd64", "6.12.118+deb13-amd64"):
        (host.root / "lib/modules" / kernel).mkdir(parents=True)
    assert host.read().kernels == ("6.1.0-9-amd64", "6.1.0-41-amd64", "6.12.9-amd64", "6.12.118+deb13-amd64")


def test_a_package_of_another_architecture_says_so(host: Host) -> None:
    paragraph = "Package: libcuda1\nStatus: install ok installed\nArchitecture: {}\nVersion: 580.159.03-1\n"
    host.write("var/lib/dpkg/status", "\n".join(paragraph.format(one) for one in ("amd64", "i386")))
    assert [package.name for package in host.read().packages] == ["libcuda1", "libcuda1:i386"]
