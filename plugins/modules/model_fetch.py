#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: model_fetch
short_description: Fetch models into the store of a host, and hand those it has to other hosts
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Runs a program on the host, as a transient unit that outlives the task, which fetches the files of models from the
    hub or from other hosts, goes on with those that an earlier run has left half, verifies their checksums, and lets a
    model's directory appear in the store once all of it is there.
  - It serves what it has to the other hosts of the run meanwhile, by HTTP with a token, on one address and port. These
    are opened in the firewall for hosts that fetch from this one, and closed at the end.
  - The part that waits prints how far the host is.
extends_documentation_fragment:
  - gpuhosts.vllm.attributes
  - gpuhosts.vllm.access
attributes:
  check_mode:
    details: Nothing is fetched, and O(state=started) tells a change.
  idempotent:
    support: none
options:
  state:
    description:
      - V(started) begins in the background, V(followed) waits until it is done and returns why it failed if it did, and
        V(stopped) ends it and closes the port.
    type: str
    choices: [started, followed, stopped]
    required: true
  directory:
    description: The store.
    type: path
    required: true
  models:
    description:
      - With O(state=started), the models, each with its C(place), its C(manifest), the C(sources) to have it from, in
        their order, and the files that are C(damaged). One without sources is only handed to others.
    type: list
    elements: dict
    default: []
  serve:
    description: With O(state=started), C(address), C(port) and C(token) by which other hosts have files from this one.
    type: dict
    default: {}
  parallel:
    description: How many files come at once.
    type: int
    default: 4
  patience:
    description: Seconds without a byte from any source after which it is given up.
    type: int
    default: 60
  timeout:
    description: Seconds after which it is ended, whatever has come.
    type: int
    default: 86400
seealso:
  - module: gpuhosts.vllm.model_store
"""

EXAMPLES = r"""
- name: Fetch what is missing
  gpuhosts.vllm.model_fetch:
    state: started
    directory: /srv/model-store
    models: "{{ work.models }}"
    serve: {address: 10.0.0.11, port: 29400, token: "{{ token }}"}

- name: Wait for it
  gpuhosts.vllm.model_fetch:
    state: followed
    directory: /srv/model-store
"""

RETURN = r"""
status:
  description: With O(state=followed), how far it is.
  returned: with O(state=followed)
  type: dict
  sample:
    state: done
    problem: ""
    rate: 1180402122
    models:
      - {place: Qwen--Qwen3-8B--main, done: 16397435904, total: 16397435904}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import ARGUMENTS
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_unit import begin, end, progress

LINGER = 900  # seconds that a host serves after somebody has asked, should the run never come to its end
INHERITED = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "ssl_cert_file", "ssl_cert_dir")


def main() -> None:
    """Do what the state says."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "followed", "stopped"], "required": True},
            "directory": {"type": "path", "required": True},
            "models": {"type": "list", "elements": "dict", "default": [], "no_log": True},
            "serve": {"type": "dict", "default": {}, "no_log": True},
            "parallel": {"type": "int", "default": 4},
            "patience": {"type": "int", "default": 60},
            "timeout": {"type": "int", "default": 86400},
            "access": {"type": "dict", "options": ARGUMENTS},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=given["state"] == "started", status={"state": "done", "problem": "", "models": []})
    job = {key: given[key] for key in ("directory", "models", "serve", "parallel", "patience")}
    job["environment"] = {name: value for name, value in os.environ.items() if name.lower() in INHERITED}
    try:
        if given["state"] == "started":
            begin({**job, "linger": LINGER}, seconds=given["timeout"], access=given["access"])
        elif given["state"] == "stopped":
            end(Path(given["directory"]))
        else:
            module.exit_json(changed=False, status=progress())
        module.exit_json(changed=given["state"] == "started")
    except FleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
