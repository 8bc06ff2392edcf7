#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_facts
short_description: The NVIDIA GPUs of a host, as facts
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads every GPU through NVML, field by field; what a card does not support is null.
  - A host without a driver is not an error; C(gpus) is empty then and C(reason) says why.
  - The controller's pynvml (package C(nvidia-ml-py)) travels along with the module, so that a host needs a Python
    and nothing else. Without it on the controller the host's own is used.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  binding:
    description: The packed pynvml. The action plugin of this module sets it; leave it alone.
    type: str
"""

EXAMPLES = r"""
- name: Read the GPUs
  gpuhosts.vllm.gpu_facts:

- name: Show their names
  ansible.builtin.debug:
    msg: "{{ ansible_facts.gpu_facts.gpus | map(attribute='name') }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts under the key C(gpu_facts). Sizes are GiB.
  returned: always
  type: dict
  contains:
    gpu_facts:
      description: The GPUs and how they reach each other.
      type: dict
      contains:
        gpus:
          description:
            - One entry per GPU with C(index), C(lost), C(uuid), C(pci_bus_id), C(name), C(total_gib),
              C(reserved_gib), C(free_gib), C(compute_capability), C(mig_enabled), C(mig_devices), C(ecc_enabled),
              C(ecc_pending), C(persistence_enabled), C(power_limit_w), C(pcie_generation), C(pcie_generation_max),
              C(pcie_width), C(pcie_width_max), C(numa_node), C(fabric_state) and C(processes).
          type: list
          elements: dict
        reason:
          description: Why there are no GPUs.
          type: str
        driver_version:
          description: Version of the driver's library.
          type: str
          sample: 580.95.05
        module_version:
          description: Version of the kernel module that is loaded.
          type: str
          sample: 580.95.05
        cuda_version:
          description: Newest CUDA that the driver runs.
          type: str
          sample: "13.0"
        link:
          description: What holds a domain together, one of V(nvlink), V(pcie) (one PCIe root) and V(host).
          type: str
          sample: nvlink
        domains:
          description: Disjoint sets of GPU indices in which each GPU is linked with each.
          type: list
          elements: list
          sample: [[0, 1, 2, 3]]
        rdma:
          description:
            - Ports for InfiniBand and RoCE, each with C(device), C(port), C(kind), V(InfiniBand) or V(RoCE), C(active),
              C(cable) (the other end answers) and C(rate).
          type: list
          elements: dict
          sample: [{device: mlx5_0, port: 1, kind: InfiniBand, active: true, cable: true, rate: 400 Gb/sec}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import read_for


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"binding": {"type": "str", "no_log": True}}, supports_check_mode=True)
    module.exit_json(changed=False, ansible_facts={"gpu_facts": read_for(module).to_dict()})


if __name__ == "__main__":
    main()
