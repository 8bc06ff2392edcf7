#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: What has to be known of a host before it can be judged
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads what the checks of C(doctor.yml) are about, field by field; what cannot be read is null. Changes nothing.
  - Needs no privileges. Root sees more; whose a taken port is, the ACS registers of PCIe bridges, and what is in
    directories of the service user.
  - The arguments of processes are not read, because they may hold secrets.
  - The controller's pynvml (package C(nvidia-ml-py)) travels along with the module.
extends_documentation_fragment: gpuhosts.vllm.attributes
seealso:
  - module: gpuhosts.vllm.gpu_facts
  - module: gpuhosts.vllm.driver_facts
options:
  plan:
    description: The fleet plan, which says what is to run on the host. Without one, it is what the models that may run
      there need at least, the ports that stand in C(vllm_models) and room for the largest model.
    type: dict
    default: {}
  model_facts:
    description: What M(gpuhosts.vllm.model_facts) returned of the models of the hub, for their sizes.
    type: dict
    default: {}
  wanted:
    description: What is wanted of the host. The action plugin of this module makes it of the host's variables, O(plan)
      and O(model_facts); leave it alone.
    type: dict
    required: true
  binding:
    description: The packed pynvml. The action plugin of this module sets it; leave it alone.
    type: str
"""

EXAMPLES = r"""
- name: Look at the host
  gpuhosts.vllm.host_info:
    plan: "{{ fleet_plan }}"
  register: look

- name: Judge it
  gpuhosts.vllm.fleet_diagnosis:
    looks: "{{ {inventory_hostname: look} }}"
"""

RETURN = r"""
wanted:
  description: What is wanted of the host.
  returned: success
  type: dict
machine:
  description: What is neither GPU nor driver; sizes are GiB.
  returned: success
  type: dict
  contains:
    python:
      description: Version of the interpreter that ran the module. One older than 3.9 reads nothing else.
      type: str
      sample: 3.11.2
    time_epoch:
      description: The host's clock.
      type: float
    clock_synchronized:
      description: Whether a time server keeps the clock right.
      type: bool
    reboot_for:
      description:
        - Packages of the distribution that ask for a reboot, empty when they are not named; null when none does.
      type: list
      elements: str
    vllm_python:
      description:
        - Version of the interpreter that vLLM is to be installed with; null where there is none, or the role vllm
          chooses one.
      type: str
    shm_gib:
      description: Size of C(/dev/shm).
      type: float
    memlock:
      description: Bytes that an engine that runs may lock, else the most that it could be allowed; or V(unlimited).
      type: str
    rdma_devices:
      description: Names of the RDMA devices.
      type: list
      elements: str
    iommu_types:
      description: Types of the IOMMU groups of the GPUs; empty without an IOMMU.
      type: list
      elements: str
    acs_bridges:
      description: PCI addresses of the bridges above GPUs that send peer traffic to the root complex.
      type: list
      elements: str
    listeners:
      description: Who listens on the ports that are wanted, with C(port), C(address) and C(process).
      type: list
      elements: dict
    spaces:
      description:
        - The file systems of what takes room, with C(purpose), C(path), C(device), C(free_gib) and C(missing_gib).
      type: list
      elements: dict
    processes:
      description: Processes that use a GPU, with C(pid), C(command) and C(unit).
      type: list
      elements: dict
    engines:
      description: Instances that the role vllm has put on the host.
      type: list
      elements: str
    keepers:
      description:
        - What their keepers say, with C(id), C(state) (null when there is none), C(waits_for), C(epoch), and C(reason),
          for which the epoch before ended.
      type: list
      elements: dict
    gpus_before:
      description: UUIDs of the GPUs when models were last served from the host; null where they never were.
      type: list
      elements: str
    cdi_specs:
      description: CDI specifications of the GPUs, with C(path), C(driver_versions) and C(missing).
      type: list
      elements: dict
    fabric_manager_active:
      description: Whether the unit of Fabric Manager runs.
      type: bool
gpu:
  description: What M(gpuhosts.vllm.gpu_facts) returns; null on a host that is to serve no models.
  returned: success
  type: dict
driver:
  description: What M(gpuhosts.vllm.driver_facts) returns; null on a host that is to serve no models.
  returned: success
  type: dict
asked_epoch:
  description: The controller's clock before and after the module ran.
  returned: success
  type: list
  elements: float
"""

import platform
import sys

from ansible.module_utils.basic import AnsibleModule

FLOOR = (3, 9)  # of what is imported below


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "wanted": {"type": "dict", "required": True},
            "binding": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    if sys.version_info >= FLOOR:
        found = _look(module)
    else:
        found = {"gpu": None, "driver": None, "machine": {"python": platform.python_version()}}
    module.exit_json(changed=False, wanted=module.params["wanted"], **found)


def _look(module: AnsibleModule) -> dict[str, object]:
    from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import read_driver
    from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.machine import Wanted, read_machine
    from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import read_for

    wanted = Wanted.from_dict(module.params["wanted"])
    if not wanted.gpu_host:
        return {"gpu": None, "driver": None, "machine": read_machine(wanted).to_dict()}
    gpu = read_for(module)
    machine = read_machine(wanted, gpu.gpus)
    return {"gpu": gpu.to_dict(), "driver": read_driver().to_dict(), "machine": machine.to_dict()}


if __name__ == "__main__":
    main()
