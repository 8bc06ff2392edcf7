#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: What the hosts tell of the fleet at this moment, put together
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Says of every model, instance and host how it is; C(docs/status.md) has where each figure comes from.
  - A host that was not reached, was not asked or told nothing is one of the C(notes), and no failure.
  - Runs on the controller; contacts no host and changes nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  looks:
    description: What M(gpuhosts.vllm.host_status) returned, by host.
    type: dict
    required: true
  addresses:
    description: Of all hosts of the fleet, asked or not, by their names.
    type: dict
    default: {}
  observers:
    description: The hosts that have Prometheus.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look
  gpuhosts.vllm.host_status:
    engine_address: "{{ inventory_hostname | gpuhosts.vllm.address(hostvars) }}"
  register: look

- name: Put it together
  gpuhosts.vllm.fleet_status:
    looks: "{{ {inventory_hostname: look} }}"
"""

RETURN = r"""
status:
  description: The picture.
  returned: success
  type: dict
  contains:
    time:
      description: When it was taken; all times are UTC in ISO 8601.
      type: str
    summary:
      description: One line of it.
      type: str
    models:
      description: Each with C(name), how many C(instances) it has and how many of them are C(up), C(drained), C(down)
        and C(unknown), C(running), C(waiting), C(kv_cache_usage), C(ttft_p95_seconds), and C(idle), whether it had no
        request that this could be measured of.
      type: list
      elements: dict
    instances:
      description: Each with C(id), C(model), C(hosts), C(state) and its C(reason), C(since) when it has been alive,
        C(running), C(waiting) and C(kv_cache_usage). What is not known is null.
      type: list
      elements: dict
    hosts:
      description: Each with C(name), C(answers), C(gpus), C(celsius) of the hottest one, C(gpu_errors), C(changed),
        C(changed_file) and C(last_run).
      type: list
      elements: dict
    front_doors:
      description: Each with C(host) and its C(connections).
      type: list
      elements: dict
    alerts:
      description: Those that fire, each with C(name), C(severity), C(summary), C(since), C(silenced) and C(labels).
      type: list
      elements: dict
    last_change:
      description: The youngest change of all hosts, with C(host), C(changed) and C(changed_file); null without any.
      type: dict
    notes:
      description: What is not known, and why.
      type: list
      elements: str
table:
  description: The same as lines for people.
  returned: success
  type: list
  elements: str
"""
