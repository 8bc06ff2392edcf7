#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_compare
short_description: What the engines report against what the plan promised
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Compares tokens of the KV cache, requests at full context, and the context length.
  - Adds what the option C(calibration) of M(gpuhosts.vllm.fleet_plan) is made of.
  - Runs on the controller; contacts no host and changes nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  plan:
    description: The fleet plan.
    type: dict
    required: true
  reports:
    description: Results of M(gpuhosts.vllm.engine_ready) in loops over instances. One may be missing.
    type: list
    elements: dict
    required: true
  date:
    description: When the engines were asked, for people.
    type: str
    required: true
  hosts:
    description: The GPU hosts that the plan was made for; the page shows their hardware, and what is free.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Wait until every instance answers
  gpuhosts.vllm.engine_ready:
    unit: vllm@{{ item.id }}.service
    url: http://{{ item.endpoint.address }}:{{ item.endpoint.port }}
    model: "{{ item.model }}"
  loop: "{{ vllm_instances }}"
  register: ready

- name: Compare
  gpuhosts.vllm.fleet_compare:
    plan: "{{ fleet_plan }}"
    reports: "{{ ready.results }}"
    date: "{{ now(utc=true).strftime('%Y-%m-%d') }}"
"""

RETURN = r"""
comparison:
  description:
    - Of each instance C(promised), C(effective) and C(difference_percent), which is null where one of them is
      not known.
    - C(measurement) is null for an engine that tells nothing of the memory that was there, because its KV cache is
      pinned, it is not sized, or it runs on vLLM's CPU build.
  returned: success
  type: list
  elements: dict
table:
  description: The same as lines for people.
  returned: success
  type: list
  elements: str
files:
  description: The same as C(effective.json), and as the page C(effective.html); see M(gpuhosts.vllm.fleet_report).
  returned: success
  type: list
  elements: dict
"""
