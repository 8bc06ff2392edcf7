#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: The fleet plan as files to keep
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Makes of a fleet plan what M(gpuhosts.vllm.fleet_keep) writes. C(plan.json) is for programs, C(plan.txt) for
    terminals, and C(plan.html) is a page for browsers that needs nothing else.
  - Of environment variables the files have the names alone, because a value may be a secret.
  - Runs on the controller; contacts no host and changes nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  plan:
    description: The fleet plan, as M(gpuhosts.vllm.fleet_plan) returns it.
    type: dict
    required: true
  table:
    description: The plan for terminals, as M(gpuhosts.vllm.fleet_plan) returns it.
    type: str
    required: true
  hosts:
    description: The GPU hosts that it was made for; the page shows their hardware, and what is free.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Make the plan readable
  gpuhosts.vllm.fleet_report:
    plan: "{{ fleet.plan }}"
    table: "{{ fleet.table }}"
  register: report

- name: Keep it
  gpuhosts.vllm.fleet_keep:
    directory: reports
    files: "{{ report.files }}"
"""

RETURN = r"""
files:
  description: The files.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the file.
      type: str
    content:
      description: What is in it.
      type: str
    told:
      description: Whether people want to be told of a difference; a page for browsers is none to show in a terminal.
      type: bool
"""
