#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_good
short_description: Keep what the engines of a host were started from, or go back to it
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Keeps the content of the files that the instances of a host are started from, once all of them have answered a real
    request, and lets these files be so again where an update has failed.
  - Releases, images and models are not in it. They lie beside each other, and the files name those that are used.
  - Starts and stops nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  state:
    description:
      - V(kept) keeps what there is now, and removes O(mark).
      - V(restored) writes what was kept, removes what was not there then, and leaves O(mark). Without anything that was
        kept, nothing is done.
    type: str
    choices: [kept, restored]
    required: true
  file:
    description: Where it is kept, for root only, because secrets are among it.
    type: path
    required: true
  paths:
    description: What instances are started from, as patterns of the shell.
    type: list
    elements: path
    required: true
  mark:
    description: Local fact that tells that the host has gone back, when and why.
    type: path
    required: true
  instances:
    description: The instances of the host, with what they are asked for an answer.
    type: list
    elements: dict
    default: []
  seconds:
    description: What each instance took from its start to its first answer, by C(id), of those that were started.
    type: dict
    default: {}
  reason:
    description: Why the host goes back.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Every instance has answered
  gpuhosts.vllm.engine_good:
    state: kept
    file: /etc/vllm/good/last.json
    paths: [/etc/vllm/instances/*.yaml, /opt/vllm/current]
    mark: /etc/ansible/facts.d/gpuhosts_rollback.fact
    instances: "{{ vllm_instances }}"
"""

RETURN = r"""
there:
  description: Whether there is something to go back to.
  returned: success
  type: bool
files:
  description: Paths that were written or removed.
  returned: success
  type: list
  elements: str
instances:
  description: The instances that were kept, each with what it is asked for an answer.
  returned: success
  type: list
  elements: dict
"""

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.good import (
    holds,
    keep,
    missing,
    read,
    restore,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import EngineError, FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import File, make_directories

SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["kept", "restored"], "required": True},
    "file": {"type": "path", "required": True},
    "paths": {"type": "list", "elements": "path", "required": True},
    "mark": {"type": "path", "required": True},
    "instances": {"type": "list", "elements": "dict", "default": []},
    "seconds": {"type": "dict", "default": {}},
    "reason": {"type": "str", "default": ""},
}


def kept(module: AnsibleModule) -> dict[str, Any]:
    """Keep what there is."""
    given = module.params
    file, mark = Path(given["file"]), Path(given["mark"])
    same = holds(read(file), given["paths"], given["instances"]) and not given["seconds"]
    files = ([] if same else [str(file)]) + ([str(mark)] if mark.exists() else [])
    if files and not module.check_mode:
        if not same:
            keep(file, given["paths"], given["instances"], given["seconds"])
        mark.unlink(missing_ok=True)
    return {"changed": bool(files), "there": True, "files": files, "instances": given["instances"]}


def restored(module: AnsibleModule) -> dict[str, Any]:
    """Go back to what was kept."""
    given = module.params
    found = read(Path(given["file"]))
    if not found:
        return {"changed": False, "there": False, "files": [], "instances": []}
    gone = missing(found)
    if gone:
        raise EngineError(f"What was served before needs {', '.join(gone)}, which is not there any more.")
    files: list[str] = []
    if not module.check_mode:
        files = list(restore(found, given["paths"]))
        mark = Path(given["mark"])
        make_directories(mark.parent)
        told = {"version": 1, "since": int(time.time()), "reason": given["reason"]}
        File(mark, 0o644, content=json.dumps(told, indent=1) + "\n").write()
    return {"changed": True, "there": True, "files": files, "instances": found["instances"]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(**(kept if module.params["state"] == "kept" else restored)(module))
    except FleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
