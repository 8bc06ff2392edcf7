#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: toolkit_plan
short_description: What a host needs so that its containers get at GPUs
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Compares packages, repository, settings, units and CDI specification of NVIDIA's container toolkit with what the
    role C(nvidia_container_toolkit) is to make of them. Changes nothing, and asks neither apt nor dnf nor a network.
  - What settings and specification are to be, C(nvidia-ctk) says; both are compared with the files that are there.
  - An engine that containers cannot get GPUs from fails, with what to do.
extends_documentation_fragment:
  - gpuhosts.vllm.attributes
  - gpuhosts.vllm.planned
attributes:
  check_mode:
    details: The engine may be missing, because an earlier role has only said that it would install one.
options:
  preflight:
    description:
      - Whether only to find what would be refused. The engine may be missing or, if it is one of Docker's packages, too
        old, because C(docker_engine) comes first.
    type: bool
    default: false
  wait:
    description:
      - Seconds that the engine may take until it hands out GPUs as C(daemon.json) says; after them the module fails.
        With 0 that is told as something to be done.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Decide what this host needs
  gpuhosts.vllm.toolkit_plan:
    host: "{{ inventory_hostname }}"
    distribution: "{{ ansible_facts.distribution }}"
    distribution_version: "{{ ansible_facts.distribution_version }}"
    platforms: "{{ platforms }}"
    wishes: "{{ wishes }}"
  register: toolkit

- name: Say what differs
  ansible.builtin.debug:
    var: toolkit.plan.differs
"""

RETURN = r"""
plan:
  description:
    - What was decided, with C(settled) (nothing is to be done), C(differs) (by step of the role, what is not as
      wanted) and C(vendor) (what the role C(common) is to install).
  returned: success, without O(preflight)
  type: dict
say:
  description: What an operator should read.
  returned: success
  type: list
  elements: str
"""

from functools import partial
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import read_engine, wait_for
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import read_packages
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.planned import (
    ARGUMENTS,
    Host,
    platform_of,
    wishes_of,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer, run
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.toolkit_plan import (
    Toolkit,
    Wishes,
    describe,
    is_able,
    plan_toolkit,
    read_toolkit,
)

ROOT = Path("/")
REMEDY = "Reinstall the host or take it out of this play."
DOCKERS_OWN = "docker-ce"


def may_come(parameters: dict, *, check_mode: bool) -> set:
    """What of the engine may still be mended, as `plan_toolkit` takes it."""
    later = set() if parameters["wait"] else {"unable"}
    if parameters["preflight"] or check_mode:
        later |= {"missing"}
    if parameters["preflight"] and any(one.name == DOCKERS_OWN for one in read_packages(ROOT, run, (DOCKERS_OWN,))):
        later |= {"old"}
    return later


def decide(parameters: dict, *, check_mode: bool) -> dict:
    """What the module returns."""
    wishes = wishes_of(Wishes, parameters["wishes"])
    host = Host(parameters["host"], parameters["distribution"], parameters["distribution_version"])
    platform = platform_of(host, parameters["platforms"], "nvidia_container_toolkit", REMEDY)
    engine = wait_for(parameters["wait"], partial(read_engine, ROOT), lambda engine: is_able(engine, wishes.mode))
    toolkit = Toolkit() if parameters["preflight"] else read_toolkit(ROOT, wishes.mode, answer)
    later = may_come(parameters, check_mode=check_mode)
    plan = plan_toolkit(engine, toolkit, wishes, host, platform, later=later)
    if parameters["preflight"]:
        return {"say": plan.notes}
    return {"plan": describe(plan, engine, toolkit, wishes.mode, host, ROOT, run), "say": plan.notes}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "preflight": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        decided = decide(module.params, check_mode=module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **decided)


if __name__ == "__main__":
    main()
