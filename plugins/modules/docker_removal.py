#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_removal
short_description: Tell whether the Docker Engine of a host may go
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Tells whether the role P(gpuhosts.vllm.docker_engine#role) has installed the engine. Changes nothing.
  - Fails where that engine has containers, where it does not answer, so that nobody can tell, and where its containerd
    has containers of others. With C(live-restore) containers run on without the daemon.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  host:
    description: Name of the host, for messages.
    type: str
    required: true
  mark:
    description: File that the role leaves before it installs an engine where there was none.
    type: path
    required: true
  unmarked:
    description: Whether an engine without O(mark) may go as well.
    type: bool
    default: false
  unasked:
    description: Whether an engine that does not answer may go as well, with all that runs there.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: May Docker go
  gpuhosts.vllm.docker_removal:
    host: "{{ inventory_hostname }}"
    mark: /var/lib/gpuhosts/docker_engine
  register: docker
"""

RETURN = r"""
may_go:
  description: Whether it is the role's to remove.
  returned: success
  type: bool
stays:
  description: Why it stays, if there is one.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker_removal import may_go

ROOT = Path("/")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "mark": {"type": "path", "required": True},
            "unmarked": {"type": "bool", "default": False},
            "unasked": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        goes, stays = may_go(ROOT, given["host"], given["mark"], unmarked=given["unmarked"], unasked=given["unasked"])
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, may_go=goes, stays=stays)


if __name__ == "__main__":
    main()
