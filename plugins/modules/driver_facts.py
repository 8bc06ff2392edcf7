#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_facts
short_description: The NVIDIA driver of a host, as facts
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads what is installed, what is loaded, where it came from, whether a reboot is pending, and what the GPUs on the
    PCI bus want, without NVML and without a driver.
  - Versions are NVIDIA's own, such as C(580.178.04).
extends_documentation_fragment: gpuhosts.vllm.attributes
"""

EXAMPLES = r"""
- name: Look at the driver
  gpuhosts.vllm.driver_facts:

- name: Stop where a reboot is pending
  ansible.builtin.assert:
    that: not ansible_facts.driver_facts.reboot_pending
    fail_msg: "{{ ansible_facts.driver_facts.reboot_reason }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts under the key C(driver_facts). What is not there is null.
  returned: always
  type: dict
  contains:
    driver_facts:
      description: The driver and the hardware that it is for.
      type: dict
      contains:
        kernel:
          description: Release of the running kernel.
          type: str
          sample: 6.1.0-41-amd64
        kernels:
          description: Releases of the kernels on disk, the newest last.
          type: list
          elements: str
          sample: [6.1.0-40-amd64, 6.1.0-41-amd64]
        loaded_version:
          description: Version of the kernel module in memory.
          type: str
          sample: 580.178.04
        loaded_open:
          description: Whether that is the open one.
          type: bool
        installed_version:
          description: Version of the kernel module on disk that the running kernel would load.
          type: str
          sample: 580.178.04
        installed_open:
          description: Whether that is the open one.
          type: bool
        module_versions:
          description: Versions of the kernel module on disk, by the kernel that they are built for.
          type: dict
          sample: {6.1.0-41-amd64: 580.178.04}
        library_version:
          description: Version of the file behind C(libnvidia-ml.so.1).
          type: str
          sample: 580.178.04
        reboot_pending:
          description: Whether the driver works only after a reboot.
          type: bool
        reboot_reason:
          description: Why.
          type: str
          sample: kernel module 580.159.03 is loaded, 580.178.04 is installed
        nouveau_loaded:
          description: Whether the kernel's own driver is in memory.
          type: bool
        secure_boot:
          description: Whether the kernel takes signed modules only; null when the firmware does not say.
          type: bool
        pci_gpus:
          description: GPUs on the PCI bus, each with C(bus_id), C(device_id) and C(generation), the architecture.
          type: list
          elements: dict
          sample: [{bus_id: "0000:1b:00.0", device_id: "0x2330", generation: hopper}]
        nvswitches:
          description: How many NVSwitches are on the PCI bus. Those of NVLink 5 are not.
          type: int
        fabric:
          description:
            - Which companions the hardware needs, C(manager) (Fabric Manager and NSCQ), C(subnet_manager) (nvlsm),
              C(imex), and the C(reason).
          type: dict
        supported_modules:
          description:
            - Flavours of the kernel module that run all GPUs, C(open) and C(proprietary); the one to take comes first.
          type: list
          elements: str
        modules_reason:
          description: Why these.
          type: str
        source:
          description: Where the driver came from, one of C(nvidia), C(distro), C(runfile), C(mixed) and C(none).
          type: str
        packages:
          description:
            - Its packages, each with C(name), C(version), C(source), C(held) and C(configured). One that is not of
              the host's own architecture has that at the end of its name, as in C(libcuda1:i386).
          type: list
          elements: dict
        held:
          description: Whether all of them are held back from upgrades.
          type: bool
        companions:
          description:
            - Versions of C(nvidia-fabricmanager), C(libnvidia-nscq), C(libnvsdm) and C(nvidia-imex), as far as they are
              installed.
          type: dict
        fabric_manager_version:
          description: That of Fabric Manager.
          type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import read_driver


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts={"driver_facts": read_driver().to_dict()})


if __name__ == "__main__":
    main()
