"""A GPU host below a directory: healthy, until a test puts a fault into it."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, read_driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.gpu import GpuHost
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import (
    Disk,
    Machine,
    Port,
    Wanted,
    read_machine,
)
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.checks import Host
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.doctor import diagnose
from keeper_protocol import Keeper, Memory, Node, metrics

ROOT = Path(__file__).resolve().parents[3]
UUIDS = [f"GPU-00000000-0000-0000-0000-{index:012}" for index in range(2)]
BRIDGE = "0000:00:01.0"
DRIVER = "580.95.05"
MODINFO = "version:        {0}\nlicense:        Dual MIT/GPL\n"
CDI = """cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/libcuda.so.{0}
    hostPath: /usr/lib/libcuda.so.{0}
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
"""
LIMITS = "Limit                Soft Limit   Hard Limit   Units\nMax locked memory    {0}    {0}    bytes\n"


def through_json(record: dict[str, Any]) -> dict[str, Any]:
    """What arrives of what a module returns."""
    return json.loads(json.dumps(record))


class Patient:
    """Two L40S behind one PCIe bridge, with one engine that runs; what a test changes is what is read."""

    def __init__(self, root: Path, read_gpus: Callable[[str], dict[str, Any]]) -> None:
        self.root = root
        self.name = "gpu1"
        self._read_gpus = read_gpus
        self.gpus = (ROOT / "tests/fake_nvml/hosts/2xl40s.conf").read_text()
        self.answers = {
            "timedatectl": "yes\n",
            "/usr/bin/python3": "3.11.2\n",
            "systemctl": "active\n",
            "modinfo": MODINFO.format(DRIVER),
        }
        self.ahead_seconds = 0.0  # of its clock
        self.python = ""  # instead of the one that runs the tests
        self.contact: dict[str, Any] = {}  # what is wrong with the way to it
        self.wanted = Wanted(
            gpu_host=True,
            several_gpus=True,
            shm_gib=0.001,
            vllm_version="0.33.0",
            vllm_python="/usr/bin/python3",
            ports=(Port(8000, (r"vllm@.+\.service",), "vLLM", "10.0.0.1"),),
            disks=(Disk("/var/lib/vllm/huggingface/hub", 0.001, "model tiny"),),
        )
        self.process(1, "systemd", "init.scope")
        self.write("dev/shm/psm_1")
        self.write("proc/1/status", "CapBnd:\t000001ffffffffff\n")
        self.write("proc/1/limits", LIMITS.format("8388608"))
        self.process(50, "VLLM::EngineCor", "vllm@tiny-1.service")
        self.write("proc/50/limits", LIMITS.format("unlimited"))
        self.listen(50, "10.0.0.1", 8000)
        self.fact("gpuhosts_vllm", {"version": 1, "instances": [{"id": "tiny-1"}]})
        self.keeper("serving")
        self.fact("gpuhosts_gpus", {"version": 1, "gpus": [{"uuid": uuid} for uuid in UUIDS]})
        self.write("sys/class/infiniband/mlx5_0/node_type", "1: CA\n")
        self.bridge(control=0)
        for index in range(2):
            device = self.pci(f"0000:1{index}:00.0", "0x26b9", "0x030200")
            self.link(f"{device}/iommu_group", f"sys/kernel/iommu_groups/{index}")
        self.iommu("identity")
        self.module(DRIVER)
        self.library(DRIVER)
        self.packages(("libnvidia-compute", DRIVER), ("nvidia-dkms-open", DRIVER))
        for path in ("usr/bin/nvidia-cdi-hook", "dev/nvidia0"):
            self.write(path)
        self.write("var/run/cdi/nvidia.yaml", CDI.format(DRIVER))

    # What a fault is made of.

    def write(self, path: str, content: str | bytes = "") -> None:
        """A file, with the directories above it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link to something in the same root."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).symlink_to(self.root / target)

    def fact(self, name: str, content: dict[str, Any]) -> None:
        """A local fact of Ansible."""
        self.write(f"etc/ansible/facts.d/{name}.fact", json.dumps(content))

    def keeper(self, state: str, **more: Any) -> None:
        """What the keeper of the instance tiny-1 says, in its own words."""
        one = Keeper(Node("tiny-1", []), "", Memory(reason=more.pop("reason", "")), 0.0, lambda: 1000.0)
        one.state = state
        for name, value in more.items():
            setattr(one, name, value)
        self.write("run/vllm/tiny-1/keeper.prom", metrics(one))

    def process(self, pid: int, command: str, unit: str) -> None:
        """A process in a unit of systemd."""
        self.write(f"proc/{pid}/comm", f"{command}\n")
        self.write(f"proc/{pid}/cgroup", f"0::/system.slice/{unit}\n")

    def listen(self, pid: int, address: str, port: int) -> None:
        """A socket of a process, as the kernel lists it."""
        inode = 1000 + pid
        number = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
        head = "sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode\n"
        self.write("proc/net/tcp", f"{head} 0: {number}:{port:04X} 00000000:0000 0A 0:0 0:0 0 0 0 {inode} 1\n")
        (self.root / f"proc/{pid}/fd").mkdir(parents=True)
        (self.root / f"proc/{pid}/fd/7").symlink_to(f"socket:[{inode}]")

    def bridge(self, control: int, size: int = 4096) -> None:
        """The configuration space of the bridge above the GPUs: another capability, then ACS."""
        space = bytearray(4096)
        space[0x100:0x104] = (0x0001 | 1 << 16 | 0x148 << 20).to_bytes(4, "little")
        space[0x148:0x14C] = (0x000D | 1 << 16).to_bytes(4, "little")
        space[0x14E:0x150] = control.to_bytes(2, "little")
        self.write(f"sys/devices/pci0000:00/{BRIDGE}/config", bytes(space[:size]))

    def pci(self, bus_id: str, device: str, device_class: str) -> str:
        """A device of NVIDIA's behind the bridge; returns its directory."""
        directory = f"sys/devices/pci0000:00/{BRIDGE}/{bus_id}"
        for name, number in {"vendor": "0x10de", "device": device, "class": device_class}.items():
            self.write(f"{directory}/{name}", f"{number}\n")
        self.link(f"sys/bus/pci/devices/{bus_id}", directory)
        return directory

    def module(self, version: str) -> None:
        """The kernel module in memory; "": there is none."""
        self.write("sys/module/nvidia/version", version)
        text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n"
        self.write("proc/driver/nvidia/version", text if version else "")
        if not version:
            self.fault("driver_not_loaded")

    def fault(self, name: str) -> None:
        """Why NVML does not start."""
        self.gpus += f"\n[host]\nfault = {name}\n"

    def library(self, version: str) -> None:
        """The driver's libraries, as NVML and a CDI specification name them."""
        self.write(f"usr/lib/libcuda.so.{version}")
        self.write(f"usr/lib/libnvidia-ml.so.{version}")
        (self.root / "usr/lib/libnvidia-ml.so.1").unlink(missing_ok=True)
        (self.root / "usr/lib/libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{version}")

    def packages(self, *packages: tuple[str, str], **fields: str) -> None:
        """What dpkg knows of the driver: name and version of each; fields are those of the last one."""
        status = ""
        for number, (name, version) in enumerate(packages, start=1):
            values = {"Status": "hold ok installed", "Maintainer": "cudatools <cudatools@nvidia.com>"}
            values |= {key: value for key, value in fields.items() if number == len(packages)}
            lines = "".join(f"{key}: {value}\n" for key, value in values.items())
            status += f"Package: {name}\n{lines}Version: {version}-1\n\n"
        self.write("var/lib/dpkg/status", status)

    def iommu(self, kind: str) -> None:
        """The type of the IOMMU groups of both GPUs."""
        for index in range(2):
            self.write(f"sys/kernel/iommu_groups/{index}/type", f"{kind}\n")

    def gpu(self, key: str, value: str, index: int = 1) -> None:
        """A line of the description of one GPU."""
        self.gpus += f"\n[gpu {index}]\n{key} = {value}\n"

    def describe(self, key: str, value: str) -> None:
        """Another value for a key of the description that is there."""
        self.gpus, changed = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", self.gpus)
        assert changed, key

    def want(self, **values: Any) -> None:
        """Other wishes."""
        self.wanted = dataclasses.replace(self.wanted, **values)

    # What comes of it.

    def run(self, command: Sequence[str]) -> str:
        """What a command of this host prints."""
        return self.answers.get(command[0], "")

    def host(self) -> Host:
        """What is read, through the JSON in which it travels."""
        if self.contact:
            return Host(self.name, **self.contact)
        before = time.time()
        gpu = GpuHost.from_dict(self._read_gpus(self.gpus))
        driver = Driver.from_dict(through_json(read_driver(self.root, self.run, "6.1.0-41-amd64").to_dict()))
        machine = read_machine(self.wanted, gpu.gpus, root=self.root, run=self.run)
        seen = Machine.from_dict(through_json(machine.to_dict()))
        assert seen == machine
        assert seen.time_epoch is not None
        machine = dataclasses.replace(
            seen, time_epoch=seen.time_epoch + self.ahead_seconds, python=self.python or seen.python
        )
        asked = (before, time.time())
        return Host(self.name, wanted=self.wanted, machine=machine, gpu=gpu, driver=driver, asked_epoch=asked)

    def verdict(self) -> dict[str, Any]:
        """What the doctor says."""
        return diagnose([self.host()])
