#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: service_config
short_description: Write what a service is started from, and have it run from that
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Writes files, restarts or reloads the service where one of them is another one now or is younger than its last start
    or reload, starts it where it does not run, now and at every boot, and waits until it answers.
  - A new file replaces the old one only when its check accepts it. When the service that ran before does not answer
    with the new files, the old ones come back and it runs with these.
  - Does nothing where a package or the release is missing, and tells which.
  - Opens its ports and lets SELinux let it work, as O(access) says.
extends_documentation_fragment:
  - gpuhosts.vllm.attributes
  - gpuhosts.vllm.access
attributes:
  check_mode:
    support: full
    details: The checks of files are not run, because one file may need another one in its place.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description: The unit, without C(.service).
    type: str
    required: true
  packages:
    description: What has to be installed.
    type: list
    elements: str
    default: []
  vendor:
    description:
      - Packages that have to be installed from a repository, or at a version, in the form of the tables of the roles
        (C(manager), C(packages), C(key), C(files), C(repository)). What of it is to be done is told in RV(vendor).
    type: dict
    default: {}
  release:
    description:
      - Directory of the version that the service is started from, where that comes from no package.
      - What lies beside it, such as other versions, goes once the service runs.
    type: path
  files:
    description: The files, which belong to root, in the order in which they are written.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it lies. Directories that are missing are made.
        type: path
        required: true
      content:
        description: What it says.
        type: str
        required: true
      check:
        description: Command that must accept the new file, as a list of words, C(%s) in one of them being its path.
        type: list
        elements: str
        default: []
      taken_up_by:
        description: What the service needs for it. V(nothing) is for files that it watches.
        type: str
        choices: [restart, reload, nothing]
        default: restart
  absent:
    description: Files that must not be there; of no concern to the service unless systemd reads them.
    type: list
    elements: path
    default: []
  urls:
    description: Where it answers 200 when it is ready.
    type: list
    elements: str
    required: true
  answer:
    description: What it then says; anything by default.
    type: str
  timeout:
    description: Seconds until it answers at all of them.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Run NGINX
  gpuhosts.vllm.service_config:
    name: nginx
    packages: [nginx]
    files:
      - path: /etc/nginx/nginx.conf
        content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
        check: [nginx, -t, -c, "%s"]
        taken_up_by: reload
    urls: [http://127.0.0.1/health]
  register: nginx

- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ nginx.missing }}"
  when: nginx.missing | length > 0
"""

RETURN = r"""
missing:
  description: Packages that are not there, and the release if it is not.
  returned: success
  type: list
  elements: str
vendor:
  description: O(vendor) as the role P(gpuhosts.vllm.common#role) takes it, with the steps to do in C(todo).
  returned: where O(vendor) is given
  type: dict
files:
  description: Files that were written or removed, and directories that were removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/nginx.conf]
access:
  description: What was changed in the firewall and in SELinux, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["firewalld: TCP port 80 for 10.0.0.0/24 is open"]
steps:
  description: What was done to the service, as verbs of C(systemctl).
  returned: success
  type: list
  elements: str
  sample: [reload]
"""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import ARGUMENTS, addresses_of, look
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import read_packages
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import (
    File,
    diff_of,
    make_directories,
    remove_all,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.service import PROPERTIES, State, steps
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import take
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer, run
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.vendor import Vendor

SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "default": []},
    "vendor": {"type": "dict", "default": {}},
    "release": {"type": "path"},
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "check": {"type": "list", "elements": "str", "default": []},
            "taken_up_by": {"type": "str", "choices": ["restart", "reload", "nothing"], "default": "restart"},
        },
    },
    "absent": {"type": "list", "elements": "path", "default": []},
    "urls": {"type": "list", "elements": "str", "required": True},
    "answer": {"type": "str"},
    "timeout": {"type": "int", "default": 10},
    "access": {"type": "dict", "options": ARGUMENTS},
}
ROOT = Path("/")
UNITS = Path("/etc/systemd/system")
REQUEST_SECONDS = 5
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a service of this host needs no proxy


@dataclass(frozen=True)
class Change:
    """A file that is not as it shall be."""

    file: File
    before: str | None  # None: it is not there
    check: tuple[str, ...]
    taken_up_by: str
    goes: bool = False

    def carry_out(self, check: Callable[[Path], None]) -> None:
        """Have it as it shall be."""
        if self.goes:
            self.file.path.unlink()
        else:
            self.file.write(check)

    def undo(self) -> None:
        """Have it as it was."""
        if self.before is None:
            self.file.path.unlink(missing_ok=True)
        else:
            File(self.file.path, self.file.mode, content=self.before).write()


class Service:
    """The service, and all that is done to it."""

    def __init__(self, module: AnsibleModule) -> None:
        """Look at the unit."""
        self.module = module
        self.name: str = module.params["name"]
        self.state = State.from_properties(self.systemctl("show", f"--property={PROPERTIES}"))

    def systemctl(self, verb: str, *options: str) -> str:
        """Do something to the unit; what systemctl says, or the end of the module."""
        return str(self.module.run_command(["systemctl", verb, *options, f"{self.name}.service"], check_rc=True)[1])

    def write(self, changes: list[Change]) -> None:
        """Write files, each only when its check accepts it; all of them, or none."""
        for number, change in enumerate(changes):
            make_directories(change.file.path.parent)

            def check(new: Path, change: Change = change, done: list[Change] = changes[:number]) -> None:
                command = [word.replace("%s", str(new)) for word in change.check]
                code, output, errors = self.module.run_command(command, expand_user_and_vars=False) if command else OK
                if code:
                    new.unlink()
                    for earlier in done:
                        earlier.undo()
                    said = (errors or output).strip().replace(str(new), str(change.file.path))
                    self.module.fail_json(msg=f"{change.file.path} stays as it is: {command[0]} refuses it. {said}")

            change.carry_out(check)

    def run(self, verbs: list[str], changes: list[Change]) -> str:
        """Do what has to be done to the unit; why it does not answer then, or ""."""
        if (verbs and self.state.outdated) or any(UNITS in change.file.path.parents for change in changes):
            self.module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        for verb in verbs:
            code, output, errors = self.module.run_command(["systemctl", verb, f"{self.name}.service"])
            if code:
                return (errors or output).strip()
        return self.wait()

    def wait(self) -> str:
        """Wait until the service answers everywhere; why it does not, or ""."""
        deadline = time.monotonic() + self.module.params["timeout"]
        for url in self.module.params["urls"]:
            while problem := self.ask(url):
                if time.monotonic() > deadline:
                    return f"{url}: {problem}"
                time.sleep(0.2)
        return ""

    def ask(self, url: str) -> str:
        """Ask once; what is wrong with the answer, or ""."""
        try:
            with DIRECT.open(url, timeout=REQUEST_SECONDS) as response:
                text = response.read().decode(errors="replace")
        except (OSError, ValueError, urllib.error.URLError) as error:
            return str(error)
        expected = self.module.params["answer"]
        return "" if expected in (None, text) else f"it says {text[:80]!r}"


OK = (0, "", "")


def differing(given: dict[str, Any]) -> list[Change]:
    """The files that are not as they shall be."""
    changes = []
    for entry in given["files"]:
        file = File(Path(entry["path"]), 0o644, content=entry["content"])
        before = file.before()
        if before != file.content or not file.is_owned():
            taken_up_by = entry["taken_up_by"] if before != file.content else "nothing"
            changes.append(Change(file, before, tuple(entry["check"]), taken_up_by))
    for path in map(Path, given["absent"]):
        if UNITS in path.parents and path.exists():
            file = File(path, 0o644)
            changes.append(Change(file, file.before(), (), "restart", goes=True))
    return changes


def to_remove(path: Path) -> bool:
    """Whether a path is there and no service has to be told that it goes."""
    return UNITS not in path.parents and (path.is_symlink() or path.exists())


def not_taken_up(given: dict[str, Any], state: State) -> Iterator[str]:
    """What the service needs for files that are as they shall be, and that it runs without."""
    now, booted = time.time(), time.time() - time.monotonic()
    for entry in given["files"]:
        path = Path(entry["path"])
        written = path.stat().st_mtime if path.exists() else 0
        # Of a file from the future nobody knows when it was written.
        if written <= now and not state.has_taken_up(written - booted, entry["taken_up_by"]):
            yield entry["taken_up_by"]


def beside(release: str | None) -> list[Path]:
    """Other versions, and what is left of their installation."""
    return [path for path in sorted(Path(release).parent.iterdir()) if path != Path(release)] if release else []


def configure(module: AnsibleModule) -> dict[str, Any]:
    """Do it all, and tell what was done."""
    given = module.params
    access = look(ROOT, answer, given["access"], addresses_of)
    vendor = Vendor(**given["vendor"]).and_any_of(access.packages) if given["vendor"] else None
    names = [*given["packages"], *(vendor.packages if vendor else [])]
    packages = read_packages(ROOT, run, names) if names else []
    there = {package.name for package in packages if package.configured}
    missing = list(dict.fromkeys([*(name for name in names if name not in there), *access.packages]))
    missing += [given["release"]] if given["release"] and not Path(given["release"]).is_dir() else []
    told = {"vendor": {**vendor.to_dict(), "todo": vendor.todo(packages, ROOT, run)}} if vendor else {}
    if missing:
        return {"changed": False, "missing": missing, "files": [], "access": [], "steps": [], **told}

    service = Service(module)
    changes = differing(given)
    removed = [path for path in map(Path, given["absent"]) if to_remove(path)]
    older = beside(given["release"])
    verbs = steps(service.state, [*(change.taken_up_by for change in changes), *not_taken_up(given, service.state)])
    diff = [diff_of(change.file.path, change.before or "", change.file.content) for change in changes]
    diff += [diff_of(path, f"{path}\n", "") for path in [*removed, *older]]
    diff += access.diff
    for warning in access.warnings:
        module.warn(warning)

    if not module.check_mode:
        service.write(changes)
        take(access.selinux)
        for path in removed:
            path.unlink()
        problem = service.run(verbs, changes)
        if problem and service.state.runs and changes:
            for change in changes:
                change.undo()
            back = service.run(["restart"], changes)
            now = (
                f"does not run with the old ones either ({back})" if back else "runs with the old ones, which are back"
            )
            new = ", ".join(str(change.file.path) for change in changes)
            module.fail_json(msg=f"{given['name']} does not answer with the new {new} ({problem}). It {now}.")
        if problem:
            hint = f"Ask its journal: journalctl --unit={given['name']}"
            module.fail_json(msg=f"{given['name']} does not answer ({problem}). {hint}")
        for path in older:
            remove_all(path)
        take(access.firewall)
    return {
        "changed": bool(changes or removed or older or access.says or verbs),
        "missing": [],
        **told,
        "files": [str(path) for path in [*(change.file.path for change in changes), *removed, *older]],
        "access": access.says,
        "steps": verbs,
        "diff": diff,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(**configure(module))
    except FleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
