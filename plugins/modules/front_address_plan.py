#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: front_address_plan
short_description: What keepalived of a load balancer is told, so that it holds a floating address in its turn
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Finds the interface whose network has the address, the own address among those of the balancers, the peers, the
    priority and where NGINX tells its health. Changes nothing.
  - An address that the host cannot hold fails, with all reasons and what to do.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  host:
    description: The name of the host, for messages.
    type: str
    required: true
  address:
    description: The floating IPv4 address, with the length of its network's prefix.
    type: str
    required: true
  balancers:
    description: Addresses or names of all hosts that may hold it, this one included; the preferred one first.
    type: list
    elements: str
    required: true
  interface:
    description: The interface that gets it; empty, it is the one whose network has it.
    type: str
    default: ""
  router_id:
    description: VRRP's router id; with V(0) the last number of the address.
    type: int
    default: 0
  listens_on:
    description: What NGINX listens on, as the role C(nginx_lb) has it.
    type: list
    elements: str
    default: ["80"]
"""

EXAMPLES = r"""
- name: Decide what this balancer is told
  gpuhosts.vllm.front_address_plan:
    host: "{{ inventory_hostname }}"
    address: 10.0.0.100/24
    balancers: [10.0.0.2, 10.0.0.3]
  register: decided
"""

RETURN = r"""
plan:
  description:
    - What was decided, with C(address), C(interface), C(own_address), C(own_interface), C(peers), C(priority),
      C(router_id), C(url) (where NGINX tells its health), C(booleans) of SELinux that the question takes, and whether
      C(user_is_missing), the host C(needs_nonlocal) addresses to listen on and C(lacks_nonlocal) now.
  returned: success
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import addresses_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.front_address import Wishes, plan, read
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer

ROOT = Path("/")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "balancers": {"type": "list", "elements": "str", "required": True},
            "interface": {"type": "str", "default": ""},
            "router_id": {"type": "int", "default": 0},
            "listens_on": {"type": "list", "elements": "str", "default": ["80"]},
        },
        supports_check_mode=True,
    )
    host = module.params.pop("host")
    try:
        decided = plan(Wishes(**module.params), read(ROOT, answer), host, addresses_of)
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, plan=decided)


if __name__ == "__main__":
    main()
