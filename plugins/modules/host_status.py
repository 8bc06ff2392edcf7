#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: host_status
short_description: What a host tells of the fleet at this moment
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads what C(status.yml) shows, of engines, front doors and Prometheus, whichever the host has. Changes nothing.
  - Needs no privileges. What does not answer within 4 s is told in C(problems), and is no failure.
  - A host that cannot be reached is none either; then there is C(unreached) alone, or C(unread) where no module runs.
extends_documentation_fragment: gpuhosts.vllm.attributes
seealso:
  - module: gpuhosts.vllm.fleet_status
options:
  engine_address:
    description: Address at which the engines of the host listen. Without one it has none.
    type: str
    default: ""
  front_door_url:
    description: Where the NGINX of the host tells how many connections it has. Without it the host is no front door.
    type: str
    default: ""
  prometheus_url:
    description: Where the Prometheus of the host answers. Without it the host has none. Certificates are not checked,
      because the host asks itself.
    type: str
    default: ""
  prometheus_user:
    description: Name that Prometheus wants.
    type: str
    default: prometheus
  prometheus_password:
    description: Password that Prometheus wants. Empty means none.
    type: str
    default: ""
  alertmanager_url:
    description: Alertmanager that tells which alerts are silenced. Without it nothing is told of silences.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look at the engines of this host
  gpuhosts.vllm.host_status:
    engine_address: "{{ inventory_hostname | gpuhosts.vllm.address(hostvars) }}"
  register: look
"""

RETURN = r"""
unreached:
  description: Why the host cannot be reached.
  returned: when it cannot
  type: str
unread:
  description: Why the module did not run there.
  returned: when it did not
  type: str
engines:
  description: The instances that were put on the host. What is asked of an engine is only with the head of an instance.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Name of the instance.
      type: str
    model:
      description: Its model.
      type: str
    rank:
      description: Which of its nodes this is.
      type: int
    port:
      description: Port of its API.
      type: int
    keeper:
      description: C(state), C(waits_for) and C(epoch) of its keeper; the state is null when its unit does not run.
      type: dict
    problem:
      description: Why the engine has told nothing; else null.
      type: str
    running:
      description: Requests that run.
      type: float
    waiting:
      description: Requests that wait.
      type: float
    kv_cache_usage:
      description: The part of the KV cache that is in use, from 0 to 1.
      type: float
front_door:
  description: Its C(servers), each with C(address), C(id), C(model) and who has C(drained) it (V(operator),
    V(maintenance) or null), and its C(connections). Null where the host is no front door.
  returned: success
  type: dict
prometheus:
  description: Samples by the names of the queries, and the C(alerts) that fire. Null where Prometheus does not answer.
  returned: success
  type: dict
silenced:
  description: Labels of the alerts that are silenced.
  returned: success
  type: list
  elements: dict
changes:
  description: The file that was changed last (C(path), C(changed_epoch)), and C(run_epoch), when the last run of the
    playbooks went through. Each is null where it is not known.
  returned: success
  type: dict
problems:
  description: What could not be read, a sentence each.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.present import (
    Prometheus,
    read_changes,
    read_engines,
    read_front_door,
    silenced,
)

ROOT = Path("/")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "engine_address": {"type": "str", "default": ""},
            "front_door_url": {"type": "str", "default": ""},
            "prometheus_url": {"type": "str", "default": ""},
            "prometheus_user": {"type": "str", "default": "prometheus"},
            "prometheus_password": {"type": "str", "default": "", "no_log": True},
            "alertmanager_url": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    problems: list[str] = []
    prometheus = Prometheus(given["prometheus_url"], given["prometheus_user"], given["prometheus_password"])
    address, front_door, alertmanager = given["engine_address"], given["front_door_url"], given["alertmanager_url"]
    module.exit_json(
        changed=False,
        engines=read_engines(ROOT, address, problems) if address else [],
        front_door=read_front_door(ROOT, front_door, problems) if front_door else None,
        prometheus=prometheus.read(problems) if given["prometheus_url"] else None,
        silenced=silenced(alertmanager, problems) if alertmanager else [],
        changes=read_changes(ROOT),
        problems=problems,
    )


if __name__ == "__main__":
    main()
