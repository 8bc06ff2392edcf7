#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_diagnosis
short_description: The doctor's verdict on what was read of hosts
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Judges every host by every check that is about it; C(docs/doctor.md) has them all.
  - A host that could not be reached or read is a failure in the verdict, and none of this module.
  - Runs on the controller; contacts no host and changes nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  looks:
    description: What M(gpuhosts.vllm.host_info) registered by host, also of failed and unreachable ones.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Look
  gpuhosts.vllm.host_info:
  register: look

- name: Judge this host
  gpuhosts.vllm.fleet_diagnosis:
    looks: "{{ {inventory_hostname: look} }}"
"""

RETURN = r"""
verdict:
  description: The verdict.
  returned: success
  type: dict
  contains:
    ok:
      description: Whether nothing fails. Warnings are no failures.
      type: bool
    summary:
      description: How many hosts, failures and warnings there are.
      type: str
    failures:
      description: What keeps a host from serving, with C(code), C(host), C(observed), C(needed) and C(fix).
      type: list
      elements: dict
    warnings:
      description: Advice, likewise.
      type: list
      elements: dict
    not_judged:
      description: The C(code) and C(host) of checks for which something could not be read.
      type: list
      elements: dict
table:
  description: The same as lines for people.
  returned: success
  type: list
  elements: str
"""
