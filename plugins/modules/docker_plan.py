#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_plan
short_description: What a host needs for the Docker Engine that is wanted
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Compares the engine that is there, its packages, repository, settings and unit with what the role C(docker_engine)
    is to make of them. Changes nothing, and asks neither apt nor dnf nor a network.
  - A wish that cannot be met on this host fails, with what to do. So does an engine of somebody else's that does not
    answer or is too old.
extends_documentation_fragment:
  - gpuhosts.vllm.attributes
  - gpuhosts.vllm.planned
options:
  wait:
    description: Seconds that the engine may take until it answers; after them the module fails. With 0 it need not.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Decide what this host needs
  gpuhosts.vllm.docker_plan:
    host: "{{ inventory_hostname }}"
    distribution: "{{ ansible_facts.distribution }}"
    distribution_version: "{{ ansible_facts.distribution_version }}"
    platforms: "{{ platforms }}"
    wishes: "{{ wishes }}"
  register: engine

- name: Say what differs
  ansible.builtin.debug:
    var: engine.plan.differs
"""

RETURN = r"""
plan:
  description:
    - What was decided, with C(settled) (nothing is to be done), C(differs) (by step of the role, what is not as
      wanted), C(strangers) (packages and files of an engine that is left alone) and C(vendor) (what the role C(common)
      is to install).
  returned: success
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
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ContainersError, FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import (
    Engine,
    owners_of,
    read_engine,
    wait_for,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker_plan import Wishes, describe, plan_docker
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.planned import (
    ARGUMENTS,
    Host,
    platform_of,
    wishes_of,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import run

ROOT = Path("/")
REMEDY = "Install an engine yourself, and take the host out of this play."


def decide(parameters: dict) -> dict:
    """What the module returns."""
    wishes = wishes_of(Wishes, parameters["wishes"])
    kernel = run(["uname", "-r"]).strip()
    host = Host(parameters["host"], parameters["distribution"], parameters["distribution_version"], kernel)
    platform = platform_of(host, parameters["platforms"], "docker_engine", REMEDY)
    read = partial(read_engine, ROOT, owners_of(ROOT, platform["manager"], run))
    engine: Engine = wait_for(parameters["wait"], read, lambda engine: engine.info is not None)
    if parameters["wait"] and engine.info is None:
        raise ContainersError(
            f"{host.name}: no Docker Engine answers on /run/docker.sock after {parameters['wait']} seconds. It says "
            f"why: journalctl -u docker"
        )
    plan = plan_docker(engine, wishes, host, platform)
    return {"plan": describe(plan, engine, host, ROOT, run), "say": plan.notes}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**ARGUMENTS, "wait": {"type": "int", "default": 0}},
        supports_check_mode=True,
    )
    try:
        decided = decide(module.params)
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **decided)


if __name__ == "__main__":
    main()
