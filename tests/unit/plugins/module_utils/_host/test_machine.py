"""What is read of a host: sockets, processes, limits, PCI, file systems, CDI; and what is null when it cannot be."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import machine
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import Gpu
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.keepers import KeeperState
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import (
    CdiSpec,
    Disk,
    Listener,
    Machine,
    Port,
    Wanted,
    read_machine,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB

from tests.unit.plugins.patient import BRIDGE, CDI, LIMITS, Patient


def read(patient: Patient, wanted: Wanted | None = None) -> Machine:
    gpus = [Gpu(index=index, pci_bus_id=f"00000000:1{index}:00.0") for index in range(2)]
    return read_machine(wanted or patient.wanted, gpus, root=patient.root, run=patient.run)


def port(number: int) -> Wanted:
    return Wanted(ports=(Port(number, (), "a test"),))


# This machine


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_socket_of_this_very_process(listening: int) -> None:
    (listener,) = read_machine(port(listening)).listeners or ()
    assert (listener.port, listener.address) == (listening, "127.0.0.1")
    assert listener.process is not None
    assert listener.process.pid == os.getpid()


def test_this_machine_is_read_whole() -> None:
    wanted = Wanted(gpu_host=True, vllm_python=sys.executable, disks=(Disk("/nowhere/at/all", 1.0, "a model"),))
    machine = read_machine(wanted)
    assert machine.python == machine.vllm_python
    assert machine.memlock
    assert (machine.shm_gib or 0) > 0
    (space,) = machine.spaces
    root = os.statvfs("/")
    assert space.device == Path("/").stat().st_dev
    assert space.free_gib == pytest.approx(root.f_bavail * root.f_frsize / GIB, abs=1)


# Sockets and processes


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000", str(ip_address(0))),
        ("00000000000000000000000000000000", "::"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100000A", "10.0.0.1"),
    ],
)
def test_addresses_as_the_kernel_writes_them(patient: Patient, text: str, address: str) -> None:
    patient.write("proc/net/tcp6", f"head\n 0: {text}:0050 0:0 0A 0:0 0:0 0 0 0 99 1\n")
    assert read(patient, port(80)).listeners == (Listener(80, address),)


def test_only_sockets_that_listen_on_a_wanted_port_count(patient: Patient) -> None:
    lines = ("0100007F:0050 0:0 01", "0100007F:0051 0:0 0A", "0100007F:0050 0:0 0A")
    patient.write("proc/net/tcp", "head\n" + "".join(f"0: {line} 0:0 0:0 0 0 0 99 1\n" for line in lines))
    assert read(patient, port(80)).listeners == (Listener(80, "127.0.0.1"),)


def test_without_the_tables_of_the_kernel_nothing_is_said_of_ports(patient: Patient) -> None:
    (patient.root / "proc/net/tcp").unlink()
    assert read(patient).listeners is None


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/system-vllm.slice/vllm@tiny-1.service\n", "vllm@tiny-1.service"),
        ("12:pids:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/docker/0123abcd/system.slice/nginx.service\n", "nginx.service"),
        ("0::/system.slice/docker-0123abcd.scope\n", "docker-0123abcd.scope"),
        ("0::/\n", None),
    ],
)
def test_the_unit_of_a_process(patient: Patient, cgroup: str, unit: str | None) -> None:
    patient.write("proc/50/cgroup", cgroup)
    (listener,) = read(patient).listeners or ()
    assert listener.process is not None
    assert listener.process.unit == unit


@pytest.mark.parametrize(
    "cgroup", ["0::/system.slice/docker-{}.scope", "0::/docker/{}", f"0::/docker/{'a' * 64}/docker/{{}}"]
)
def test_a_process_in_a_container_belongs_to_the_unit_of_its_instance(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, cgroup: str
) -> None:
    monkeypatch.setattr(machine, "instances_by_container", lambda _: {"0f" * 32: "tiny-1"})
    patient.write("proc/50/cgroup", cgroup.format("0f" * 32) + "\n")
    (listener,) = read(patient).listeners or ()
    assert listener.process is not None
    assert (listener.process.unit, listener.process.engine) == ("vllm@tiny-1.service", "tiny-1")


def test_the_arguments_of_a_process_are_not_read(patient: Patient) -> None:
    patient.write("proc/50/cmdline", b"vllm\0--api-key\0s3cret")
    assert "s3cret" not in str(read(patient).to_dict())


# Limits


def memlock(patient: Patient, *, engine: str | None, capabilities: str = "0", process_1: str = "8388608") -> str | None:
    if engine is None:
        (patient.root / "proc/50/cgroup").unlink(missing_ok=True)
    else:
        patient.write("proc/50/limits", LIMITS.format(engine))
    patient.write("proc/1/status", f"CapBnd:\t{capabilities}\n")
    patient.write("proc/1/limits", LIMITS.format(process_1))
    return read(patient).memlock


def test_what_an_engine_may_lock(patient: Patient) -> None:
    assert memlock(patient, engine="unlimited") == "unlimited"
    assert memlock(patient, engine="65536") == "65536"
    assert memlock(patient, engine=None, capabilities=f"{1 << 24:016x}") == "unlimited"
    assert memlock(patient, engine=None) == "8388608"


# File systems


def space(patient: Patient, disk: Disk) -> float | None:
    (found,) = read(patient, Wanted(disks=(disk,))).spaces
    return found.missing_gib


def test_what_is_there_already_is_not_missing(patient: Patient) -> None:
    disk = Disk("/cache", 1.0, "model a", parts="/cache/blobs")
    assert space(patient, disk) == 1.0
    patient.write("cache/blobs/one", bytes(2**28))
    patient.write("cache/blobs/two.incomplete", bytes(2**28))
    assert space(patient, disk) == 0.5
    patient.write("cache/current")
    assert space(patient, Disk("/cache", 9.0, "vLLM", done="/cache/current")) == 0.0


def test_what_is_not_known_or_closed_is_null(patient: Patient) -> None:
    patient.write("cache/file")
    assert space(patient, Disk("/cache", None, "model a")) is None
    assert space(patient, Disk("/cache", 1.0, "model a", parts="/cache/file")) is None


# PCI


@pytest.mark.parametrize(("control", "redirects"), [(0b00001, False), (0b00100, True), (0b01000, True)])
def test_bridges_that_redirect(patient: Patient, control: int, redirects: bool) -> None:
    patient.bridge(control)
    assert read(patient).acs_bridges == ((BRIDGE,) if redirects else ())


def test_without_root_the_registers_of_acs_are_not_there(patient: Patient) -> None:
    patient.bridge(0b1100, size=64)
    assert read(patient).acs_bridges is None


def test_a_bridge_with_the_registers_of_old_pci_alone_has_no_acs(patient: Patient) -> None:
    patient.bridge(0b1100, size=256)
    assert read(patient).acs_bridges == ()


def test_a_list_of_capabilities_that_never_ends(patient: Patient) -> None:
    loop = bytearray(4096)
    loop[0x100:0x104] = (0x0001 | 0x100 << 20).to_bytes(4, "little")
    patient.write(f"sys/devices/pci0000:00/{BRIDGE}/config", bytes(loop))
    assert read(patient).acs_bridges == ()


def test_gpus_that_the_kernel_does_not_list(patient: Patient) -> None:
    (patient.root / "sys/bus/pci/devices/0000:11:00.0").unlink()
    machine = read(patient)
    assert (machine.acs_bridges, machine.iommu_types) == (None, None)


def test_a_host_without_an_iommu(patient: Patient) -> None:
    for index in range(2):
        (patient.root / f"sys/bus/pci/devices/0000:1{index}:00.0/iommu_group").unlink()
    assert read(patient).iommu_types == ()


# CDI


def test_a_specification_that_names_what_is_not_there(patient: Patient) -> None:
    (patient.root / "dev/nvidia0").unlink()
    (spec,) = read(patient).cdi_specs
    assert spec == CdiSpec("/var/run/cdi/nvidia.yaml", ("580.95.05",), ("/dev/nvidia0",))


def test_specifications_of_other_devices_do_not_count(patient: Patient) -> None:
    patient.write("etc/cdi/fpga.yaml", "kind: vendor.com/fpga\n")
    patient.write("etc/cdi/nvidia.yaml.bak", CDI.format("550.1"))
    assert [spec.path for spec in read(patient).cdi_specs] == ["/var/run/cdi/nvidia.yaml"]


# Keepers


def test_a_keeper_tells_its_state_and_why_the_last_epoch_ended(patient: Patient) -> None:
    patient.keeper("starting", epoch=1795884231625, reason='a "b" \\')
    assert read(patient).keepers == (KeeperState("tiny-1", "starting", "", 1795884231625, 'a "b" \\'),)


def test_where_nothing_runs_there_is_no_keeper_and_an_older_release_has_none(patient: Patient) -> None:
    (patient.root / "run/vllm/tiny-1/keeper.prom").unlink()
    assert read(patient).keepers == ()
    (patient.root / "run/vllm/tiny-1").rmdir()
    assert read(patient).keepers == (KeeperState("tiny-1"),)


# Facts


@pytest.mark.parametrize("content", ["", "damaged", "[]", '{"gpus": 8}'])
def test_a_damaged_fact_is_no_fact(patient: Patient, content: str) -> None:
    for name in ("gpus", "vllm"):
        patient.write(f"etc/ansible/facts.d/gpuhosts_{name}.fact", content)
    machine = read(patient)
    assert (machine.gpus_before, machine.engines) == (None, ())
