#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_lock
short_description: Let one run at a time change what a fleet serves
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Keeps on a host who is changing the fleet, and refuses everybody else until that run is done.
  - Whoever holds it says so again with every wave. A run that was killed is passed over by the next one from the same
    controller, which sees that the process is gone, and by anybody after O(seconds).
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  idempotent:
    support: partial
    details: Holding it again notes the time, which counts as no change.
options:
  state:
    description:
      - V(held) takes it, or says that this run is still there.
      - V(free) gives it back; one that another run holds stays.
    type: str
    choices: [held, free]
    default: held
  file:
    description: Where it is kept.
    type: path
    default: /var/lib/gpuhosts/lock.json
  seconds:
    description: Seconds after its last word that a run counts as dead.
    type: int
    default: 7200
  take:
    description: Whether it is taken from whoever has it.
    type: bool
    default: false
  who:
    description: This run; the action of the same name fills it in.
    type: dict
    suboptions:
      by:
        description: User and controller.
        type: str
        required: true
      pid:
        description: Process on that controller.
        type: int
        required: true
      run:
        description: What tells this run from all others.
        type: str
        required: true
  dead:
    description: Runs (their C(run)) of which the controller knows that they are dead; the action fills it in.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Nobody else changes the fleet meanwhile
  gpuhosts.vllm.fleet_lock:
  delegate_to: lb1
  run_once: true

- name: Others may again
  gpuhosts.vllm.fleet_lock:
    state: free
  delegate_to: lb1
  run_once: true
"""

RETURN = r"""
holder:
  description: Who has it. Empty where nobody has.
  returned: always
  type: dict
  sample: {by: "deploy@controller", pid: 4711, run: "...", since: 1796000000, seen: 1796000600}
"""

import fcntl
import json
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_KNOWN: dict[str, Any] = {"by": str, "pid": int, "run": str, "since": (int, float), "seen": (int, float)}


def read(file: Path) -> dict[str, Any]:
    """Who holds it; empty: nobody, or nobody whom one could name."""
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(holder, dict) and all(isinstance(holder.get(name), kind) for name, kind in _KNOWN.items())
    return holder if whole else {}


def holds(holder: Mapping[str, Any], run: str, dead: Collection[str], seconds: float, now: float) -> bool:
    """Whether another run than the one with this name has it and may be alive."""
    if not holder or holder["run"] == run or holder["run"] in dead:
        return False
    return now - float(holder["seen"]) < seconds


def utc(seconds: float) -> str:
    """A time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def refusal(holder: Mapping[str, Any]) -> str:
    """Why this run may not begin, and what to do."""
    return (
        f"{holder['by']} (process {holder['pid']}) has been changing this fleet since {utc(holder['since'])}; its last "
        f"word came at {utc(holder['seen'])}. Wait until it is done. If it is dead, run again with "
        "-e maintenance_take_lock=true."
    )


def change(file: Path, given: Mapping[str, Any], now: float, *, check: bool) -> tuple[bool, dict[str, Any]]:
    """Take it or give it back; whether somebody else has it now, and who has it.

    :param given: arguments of the module.
    """
    holder, who = read(file), given["who"]
    others = not given["take"] and holds(holder, who["run"], given["dead"], given["seconds"], now)
    mine = holder.get("run") == who["run"]
    if others or check:
        return others, holder
    if given["state"] == "free":
        if mine:
            file.unlink()
        return False, {} if mine else holder
    new = {**who, "since": holder["since"] if mine else now, "seen": now}
    written = file.with_suffix(".new")
    written.write_text(json.dumps(new) + "\n", encoding="utf-8")
    written.replace(file)
    return False, new


def main() -> None:
    """Run the module."""
    who = {
        "by": {"type": "str", "required": True},
        "pid": {"type": "int", "required": True},
        "run": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
            "file": {"type": "path", "default": "/var/lib/gpuhosts/lock.json"},
            "seconds": {"type": "int", "default": 7200},
            "take": {"type": "bool", "default": False},
            "who": {"type": "dict", "options": who},
            "dead": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given, file = module.params, Path(module.params["file"])
    if module.check_mode:
        others, holder = change(file, given, time.time(), check=True)
    else:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        alone = os.open(file.parent, os.O_RDONLY)  # one run at a time looks and writes; nothing of it stays
        fcntl.flock(alone, fcntl.LOCK_EX)
        others, holder = change(file, given, time.time(), check=False)
        os.close(alone)
    if others and given["state"] == "held":
        module.fail_json(msg=refusal(holder), holder=holder)
    module.exit_json(changed=False, holder=holder)


if __name__ == "__main__":
    main()
