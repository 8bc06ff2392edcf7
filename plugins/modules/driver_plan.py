#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_plan
short_description: What a host needs for the NVIDIA driver that is wanted
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Decides which packages, version, flavour of the kernel module, companions, services, locks and files a host gets,
    and compares that with what is there. Changes nothing.
  - A wish that cannot be met on this host fails, with what to do.
  - Nothing is asked of apt, dnf or a network, unless O(ask) says so.
extends_documentation_fragment:
  - gpuhosts.vllm.attributes
  - gpuhosts.vllm.planned
options:
  ask:
    description: Whether to ask the repository which versions it has. It must be known to the host.
    type: bool
    default: false
  changed:
    description: Whether this run has changed packages of the driver.
    type: bool
    default: false
  gpus:
    description:
      - Whether to read the GPUs as well, as M(gpuhosts.vllm.gpu_facts) does, which would take a second task.
    type: bool
    default: false
  models:
    description:
      - Models of which those that are directories are read as well, as M(gpuhosts.vllm.model_facts) does with
        C(only=directory) and C(required=false), which would take a third.
    type: list
    elements: raw
    default: []
  binding:
    description: The packed pynvml. The action plugin of this module sets it; leave it alone.
    type: str
"""

EXAMPLES = r"""
- name: Decide what this host needs
  gpuhosts.vllm.driver_plan:
    host: "{{ inventory_hostname }}"
    distribution: "{{ ansible_facts.distribution }}"
    distribution_version: "{{ ansible_facts.distribution_version }}"
    platforms: "{{ platforms }}"
    wishes: {source: nvidia, branch: "580"}
  register: driver

- name: Say what differs
  ansible.builtin.debug:
    var: driver.plan.differs
"""

RETURN = r"""
plan:
  description:
    - What was decided, with C(settled) (nothing is to be done), C(differs) (by step of the role, what is not as
      wanted), C(version), C(flavour), C(wanted) (what to tell the package manager) and the like.
  returned: success
  type: dict
say:
  description: What an operator should read.
  returned: success
  type: list
  elements: str
ansible_facts:
  description:
    - Facts under the key C(driver_facts), those of M(gpuhosts.vllm.driver_facts), and with O(gpus) under the key
      C(gpu_facts) those of M(gpuhosts.vllm.gpu_facts), with O(models) under the key C(model_facts) those of
      M(gpuhosts.vllm.model_facts).
  returned: success
  type: dict
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import (
    DriverError,
    FleetError,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver import Driver, read_driver
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_plan import (
    Host,
    Plan,
    Wishes,
    plan_driver,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.driver_state import (
    describe,
    has_component,
    is_enrolled,
    offered_versions,
    query,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import HubOptions, read_models, sources
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import read_for
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import read_packages
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.planned import ARGUMENTS, wishes_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.platform import find_platform, resolve
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import run

ROOT = Path("/")


def look(parameters: dict, driver: Driver) -> Host:
    """What of the host matters for the plan, driver apart."""
    name, release = find_platform(parameters["distribution"], parameters["distribution_version"])
    platform = resolve(parameters["platforms"], name)
    distro = platform.get("distro", {})
    return Host(
        name=parameters["host"],
        distribution=parameters["distribution"],
        release=release,
        architecture=os.uname().machine,
        key_enrolled=bool(driver.secure_boot) and is_enrolled(platform.get("signing_key", "")),
        has_component="list" in distro and has_component(ROOT, distro["components"][0], distro["list"]),
        kernel_packages=read_packages(ROOT, run, ("linux-",)) if "kernel_packages" in distro else (),
    )


def decide(module: AnsibleModule, driver: Driver, wishes: Wishes) -> Plan:
    """The plan, with the repository's answer where it was asked."""
    host = look(module.params, driver)
    plan = plan_driver(driver, wishes, host, module.params["platforms"])
    if not module.params["ask"] or not plan.versions:
        return plan
    code, output, errors = module.run_command(query(plan))
    if code:
        module.fail_json(
            msg=f"{module.params['host']}: {' '.join(query(plan))} failed: {errors.strip() or output.strip()}"
        )
    return plan_driver(driver, wishes, host, module.params["platforms"], offered_versions(plan, output))


def say(plan: dict, driver: Driver, name: str, mode: str) -> list:
    """What an operator should read."""
    lines = list(plan["notes"])
    if not plan["settled"]:
        lines.append(f"{plan['flavour'].capitalize()} kernel module: {plan['flavour_reason']}")
    if driver.reboot_pending and not plan["differs"]["reboot"]:
        lines.append(
            f"{name} waits for a reboot: {driver.reboot_reason} (nvidia_driver_reboot: {mode}). Until then "
            f"programs that start "
            "on its GPUs may fail."
        )
    return lines


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "ask": {"type": "bool", "default": False},
            "changed": {"type": "bool", "default": False},
            "gpus": {"type": "bool", "default": False},
            "models": {"type": "list", "elements": "raw", "default": []},
            "binding": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    try:
        wishes = wishes_of(Wishes, module.params["wishes"])
    except FleetError as error:
        module.fail_json(msg=str(error))
    driver = read_driver()
    facts = {"driver_facts": driver.to_dict()}
    if module.params["gpus"]:
        facts["gpu_facts"] = read_for(module).to_dict()
    if module.params["models"]:
        models = sources(module.params["models"], "directory")
        facts["model_facts"] = read_models(models, HubOptions(), required=False)
    if wishes.source == "none":
        there = f"driver {driver.library_version}" if driver.library_version else "no driver"
        pending = f" A reboot is pending: {driver.reboot_reason}." if driver.reboot_pending else ""
        text = f"{module.params['host']} has {there} from {driver.source}, which somebody else takes care of"
        lines = [f"{text} (nvidia_driver_source: none).{pending}"]
        module.exit_json(changed=False, ansible_facts=facts, plan={"settled": True, "differs": {}}, say=lines)
    try:
        decided = decide(module, driver, wishes)
    except DriverError as error:
        module.fail_json(msg=str(error), ansible_facts=facts)
    plan = describe(decided, driver, wishes.reboot, changed=module.params["changed"], root=ROOT, run=run)
    lines = say(plan, driver, module.params["host"], wishes.reboot)
    module.exit_json(changed=False, ansible_facts=facts, plan=plan, say=lines)


if __name__ == "__main__":
    main()
