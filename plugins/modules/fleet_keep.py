#!/usr/bin/python
# What ansible-doc shows of the action of this name, which does the work on the controller.

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_keep
short_description: Keep plans, reports and verdicts on the controller
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Writes files into a directory of the controller, which is made where it is not there.
  - Writes them in check mode as well, because a report on the controller is no change of a host.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  diff_mode:
    support: full
    details: Of the files that are worth telling.
options:
  directory:
    description: Where the files lie.
    type: path
    required: true
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the file.
        type: str
        required: true
      content:
        description: What is in it.
        type: str
        required: true
      told:
        description:
          - Whether a difference counts as a change and is shown. Measured values and pages differ every time.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Keep a verdict
  gpuhosts.vllm.fleet_keep:
    directory: reports
    files:
      - name: verify.json
        content: "{{ judged.verdict | to_nice_json }}"
"""

RETURN = r"""
paths:
  description: The files.
  returned: success
  type: list
  elements: str
"""
