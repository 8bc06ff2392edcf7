#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_verdict
short_description: The verdict on what probes of the fleet found
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Says of what models answered through the front doors, and of the targets that Prometheus has, whether all
    is well.
  - A probe that failed, or a host that did not answer, is a failure in the verdict, and none of this module.
  - Runs on the controller; contacts no host and changes nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  completions:
    description:
      - Results of M(gpuhosts.vllm.model_probe) in a loop, where C(item) is the front door and what was asked (C(name)).
    type: list
    elements: dict
    required: true
  targets:
    description: Answers of Prometheus to C(/api/v1/targets), of M(ansible.builtin.uri) in a loop over the hosts.
    type: list
    elements: dict
    default: []
  unreachable:
    description: Hosts that could be asked nothing.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Ask every model through every front door
  gpuhosts.vllm.model_probe:
    url: http://{{ item.0 }}
    model: "{{ item.1.name }}"
    task: "{{ item.1.task }}"
  loop: "{{ front_doors | product(fleet_plan | gpuhosts.vllm.served_names) }}"
  register: completions

- name: Judge
  gpuhosts.vllm.fleet_verdict:
    completions: "{{ completions.results }}"
"""

RETURN = r"""
verdict:
  description: The verdict.
  returned: success
  type: dict
  contains:
    ok:
      description: Whether all is well.
      type: bool
    summary:
      description: One line on what was asked.
      type: str
    failures:
      description: What is wrong, one line each, beginning with the host.
      type: list
      elements: str
    completions:
      description: One entry per front door and model, with C(ok), and the measured times and the answer where it was.
      type: list
      elements: dict
    targets:
      description: One entry per target of Prometheus, with C(url) and C(up).
      type: list
      elements: dict
"""
