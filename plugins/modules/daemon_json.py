#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_json
short_description: Merge settings into Docker's daemon.json
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - The file belongs to whoever administers the host, so settings are merged into it. Objects are merged key by key, all
    else is replaced, and keys that are not mentioned stay with their values.
  - Where O(settings) changes C(log-driver), the C(log-opts) of the old driver go with it.
  - A file that already says all that is left as it is, byte for byte.
  - A file that is not JSON is an error that names the line; nothing is changed then.
  - The old file is kept as a backup beside the new one. It comes back when the engine does not start with the new one.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    details: The result is validated there, too.
  diff_mode:
    support: full
options:
  path:
    description: The file. Its directory must exist, but for in check mode. A link is followed.
    type: path
    default: /etc/docker/daemon.json
  settings:
    description: What the file shall say. An empty dictionary only finds out whether it can be read.
    type: dict
    required: true
  validate:
    description:
      - Command that must accept the new file before it replaces the old one; V(%s) in it stands for the new file.
      - C(dockerd --validate --config-file %s) does it from Docker Engine 23.0 on, with the flags of the engine's unit
        after it.
    type: str
  apply:
    description:
      - What makes the engine take up a file that has changed, as verbs of C(systemctl) in their order.
      - When one of them fails, the old file is put back and the engine restarted with it, and the module fails.
    type: list
    elements: str
    choices: [reload, restart]
    default: []
"""

EXAMPLES = r"""
- name: Bound the logs of containers
  gpuhosts.vllm.daemon_json:
    settings:
      log-driver: json-file
      log-opts: {max-size: 100m, max-file: "5"}
    validate: dockerd --validate --config-file %s
"""

RETURN = r"""
settings:
  description: All that the file says afterwards.
  returned: success
  type: dict
  sample:
    data-root: /srv/docker
    live-restore: true
backup_file:
  description: Copy of the file as it was.
  returned: changed, where there was a file
  type: str
  sample: /etc/docker/daemon.json.1234.2026-11-24@10:00:00~
"""

import re
import shlex
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.daemon_json import decode, merge, parse, render
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import read_engine, wait_for
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker_unit import UNIT

# What an engine that does not start says of it, the first of such lines being the cause.
FAILED = re.compile(r"(?im)^.*(?:failed to|unable to|level=(?:error|fatal)|error:).*$")
SAME = "the following directives are specified both as a flag and in the configuration file"
ROOT = Path("/")
RELOAD_SECONDS = 10
MODE = 0o644  # of a new file; no secrets belong in it


def read(path: Path) -> str:
    """The text of the file, empty where there is none; raises ConfigFileError when it is not text."""
    return decode(path.read_bytes() if path.exists() else b"", str(path))


def replace(module: AnsibleModule, path: Path, text: str) -> str:
    """Put the text in the place of the file once it is valid, but for in check mode; returns the path of a backup."""
    new = Path(module.tmpdir, "daemon.json")
    new.write_text(text, encoding="utf-8")
    new.chmod(MODE)
    if module.params["validate"]:
        command = [str(new) if word == "%s" else word for word in shlex.split(module.params["validate"])]
        code, output, errors = module.run_command(command)
        if code:
            answer = (errors or output).strip().replace(str(new), str(path))
            remedy = f" Have one of them only: systemctl cat {UNIT} shows the flags." if SAME in answer else ""
            module.fail_json(
                msg=f"{path}: {command[0]} does not accept what the file would say. Nothing was changed. It answers: "
                f"{answer}{remedy}"
            )
    if module.check_mode:
        return ""
    backup = module.backup_local(str(path))
    module.atomic_move(str(new), str(path))
    return backup


def take_up(module: AnsibleModule, verbs: list, settings: dict) -> str:
    """Have the engine take up its file; why it does not run then, or ""."""
    for verb in verbs:
        code, _, errors = module.run_command(["systemctl", verb, UNIT])
        if code:
            return cause(module) or errors.strip()
        if verb == "reload":
            wait_until_reloaded(settings)
    return ""


def wait_until_reloaded(settings: dict) -> None:
    """Until the engine knows whether containers are to outlive its restart; its reload ends before it has read that."""
    outlive = bool(settings.get("live-restore"))
    wait_for(
        RELOAD_SECONDS,
        lambda: read_engine(ROOT),
        lambda engine: engine.info is None or engine.info.get("LiveRestoreEnabled") is outlive,
    )


def cause(module: AnsibleModule) -> str:
    """The first thing that the engine complained of in its last start."""
    _, start, _ = module.run_command(["systemctl", "show", "--property=InvocationID", "--value", UNIT])
    invocation = f"_SYSTEMD_INVOCATION_ID={start.strip()}"
    _, journal, _ = module.run_command(["journalctl", "--quiet", "--no-pager", "--output=cat", invocation])
    found = FAILED.search(journal)
    return found[0].strip() if found else ""


def put_back(module: AnsibleModule, path: Path, backup: str) -> str:
    """The old file again, and the engine with it; how that went."""
    if backup:
        shutil.move(backup, path)  # owner and mode are those of the old one
    else:
        path.unlink()
    module.run_command(["systemctl", "reset-failed", UNIT, UNIT.replace(".service", ".socket")])  # too many starts
    problem = take_up(module, ["restart"], {})
    old = "The old file is back" if backup else "The file is gone again"
    return f"{old}, and Docker does not run with it either: {problem}" if problem else f"{old}, and Docker runs."


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "settings": {"type": "dict", "required": True},
            "validate": {"type": "str"},
            "apply": {"type": "list", "elements": "str", "choices": ["reload", "restart"], "default": []},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"]).resolve()
    try:
        before = read(path)
        current = parse(before, str(path))
    except ConfigFileError as error:
        module.fail_json(msg=str(error))
    settings = merge(current, module.params["settings"])
    if settings == current:
        module.exit_json(changed=False, settings=settings)
    after = render(settings)
    backup = replace(module, path, after)
    problem = "" if module.check_mode else take_up(module, module.params["apply"], settings)
    if problem:
        module.fail_json(
            msg=f"Docker does not start with the new {path}: {problem}. {put_back(module, path, backup)} The options "
            f"of its unit are said by systemctl cat {UNIT}, the rest by journalctl --unit={UNIT}."
        )
    diff = {"before_header": str(path), "after_header": str(path), "before": before, "after": after}
    kept = {"backup_file": backup} if backup else {}
    module.exit_json(changed=True, settings=settings, diff=diff, **kept)


if __name__ == "__main__":
    main()
