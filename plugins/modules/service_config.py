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
        description: What it says; by default what O(secrets) has for that path.
        type: str
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
  secrets:
    description:
      - Files that nobody but root may read, content by path, as for C(LoadCredential=) of a unit.
      - No diff and no log shows them. They are written before O(files), and the service is restarted for them.
      - One that is among O(files), too, is checked and taken up as it says there, and written when its turn comes.
    type: dict
    default: {}
  secrets_group:
    description: A group that may read O(secrets), too.
    type: str
    default: root
  alone_in:
    description:
      - Directories of which the service reads all files. Those that are neither in O(files) nor in O(secrets) are
        removed, and the service is reloaded.
    type: list
    elements: path
    default: []
  reads:
    description: Files of somebody else's. It is reloaded where one is younger than its last start or reload.
    type: list
    elements: path
    default: []
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
  certificate:
    description:
      - The certificate in PEM that it shows at V(https) addresses, or that of the authority which has signed it.
      - The name in it does not matter, because it is asked by its address. Without it, the system's are trusted.
    type: path
  login:
    description: User and password, with a colon between them, that it wants to hear first.
    type: str
  answer:
    description: What it then says; anything by default.
    type: str
  timeout:
    description: Seconds until it answers at all of them.
    type: int
    default: 10
  stamp:
    description:
      - An empty file whose time of change tells when the service was last found as it shall be, or brought there. Its
        time is no change.
    type: path
  beside:
    description:
      - Further services of the host, whose look costs no connection of its own. Each is a dictionary of these options,
        but for O(secrets), O(secrets_group), O(login) and O(beside).
      - They are seen to once nothing is missing for the first one.
    type: list
    elements: dict
    default: []
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
beside:
  description: All this of each service in O(beside); none as long as something is missing for the first one.
  returned: success
  type: list
  elements: dict
"""

import grp
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import ARGUMENTS, addresses_of, look
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.opener import opener
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
            "content": {"type": "str"},
            "check": {"type": "list", "elements": "str", "default": []},
            "taken_up_by": {"type": "str", "choices": ["restart", "reload", "nothing"], "default": "restart"},
        },
    },
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "secrets_group": {"type": "str", "default": "root"},
    "alone_in": {"type": "list", "elements": "path", "default": []},
    "reads": {"type": "list", "elements": "path", "default": []},
    "absent": {"type": "list", "elements": "path", "default": []},
    "urls": {"type": "list", "elements": "str", "required": True},
    "certificate": {"type": "path"},
    "login": {"type": "str", "no_log": True},
    "answer": {"type": "str"},
    "timeout": {"type": "int", "default": 10},
    "stamp": {"type": "path"},
    "access": {"type": "dict", "options": ARGUMENTS},
    "beside": {"type": "list", "elements": "dict", "default": []},
}
BESIDE = {name: option for name, option in SPEC.items() if name not in {"secrets", "secrets_group", "login", "beside"}}
NO_SECRETS: dict[str, Any] = {"secrets": {}, "secrets_group": "root", "login": None}
ROOT = Path("/")
UNITS = Path("/etc/systemd/system")
REQUEST_SECONDS = 5


@dataclass(frozen=True)
class Change:
    """A file that is not as it shall be."""

    file: File
    before: str | None  # None: it is not there
    check: tuple[str, ...]
    taken_up_by: str
    goes: bool = False

    @property
    def diff(self) -> dict[str, str]:
        """What Ansible shows of it."""
        if self.file.mode != PUBLIC:
            now = "" if self.goes else "(another secret)\n"
            return diff_of(self.file.path, "" if self.before is None else "(a secret)\n", now)
        return diff_of(self.file.path, self.before or "", self.file.content)

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
            replace(self.file, content=self.before).write()


class Service:
    """The service, and all that is done to it."""

    def __init__(self, module: AnsibleModule, given: dict[str, Any]) -> None:
        """Look at the unit."""
        self.module = module
        self.given = given
        self.name: str = given["name"]
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
                    said = "\n".join(filter(None, (output.strip(), errors.strip())))  # amtool says why in its output
                    said = said.replace(str(new), str(change.file.path))
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
        deadline = time.monotonic() + self.given["timeout"]
        self.opener = opener(self.given["urls"], self.given["certificate"], self.given["login"])
        for url in self.given["urls"]:
            while problem := self.ask(url):
                if time.monotonic() > deadline:
                    return f"{url}: {problem}"
                time.sleep(0.2)
        return ""

    def ask(self, url: str) -> str:
        """Ask once; what is wrong with the answer, or ""."""
        try:
            with self.opener.open(url, timeout=REQUEST_SECONDS) as response:
                text = response.read().decode(errors="replace")
        except (OSError, ValueError) as error:
            return str(error)
        expected = self.given["answer"]
        return "" if expected in (None, text) else f"it says {text[:80]!r}"


OK = (0, "", "")
PUBLIC, SECRET, SHARED = 0o644, 0o600, 0o640


def wanted(given: dict[str, Any]) -> Iterator[tuple[File, tuple[str, ...], str]]:
    """The files, with their checks and what the service needs for them, in the order in which they are written."""
    group, named = given["secrets_group"], {entry["path"] for entry in given["files"]}
    mode = SECRET if group == "root" else SHARED
    secrets = {path: File(Path(path), mode, group=group, content=text) for path, text in given["secrets"].items()}
    for path, file in secrets.items():
        if path not in named:
            yield file, (), "restart"
    for entry in given["files"]:
        file = secrets.get(entry["path"]) or File(Path(entry["path"]), PUBLIC, content=entry["content"] or "")
        yield file, tuple(entry["check"]), entry["taken_up_by"]


def differing(given: dict[str, Any]) -> list[Change]:
    """The files that are not as they shall be."""
    changes = []
    for file, check, taken_up_by in wanted(given):
        before = file.before()
        if before != file.content or not file.is_owned():
            changes.append(Change(file, before, check, taken_up_by if before != file.content else "nothing"))
    absent = map(Path, given["absent"])
    changes += [going(path, "restart") for path in absent if UNITS in path.parents and path.exists()]
    ours = {file.path for file, _, _ in wanted(given)}
    there = [path for directory in given["alone_in"] for path in sorted(Path(directory).glob("*"))]
    return changes + [going(path, "reload") for path in there if path.is_file() and path not in ours]


def going(path: Path, taken_up_by: str) -> Change:
    """The end of a file, which comes back as it was where the service does not run without it."""
    status = path.stat()
    file = File(path, status.st_mode & 0o7777, group=name_of(status.st_gid))
    return Change(file, file.before(), (), taken_up_by, goes=True)


def name_of(gid: int) -> str:
    """The name of a group; root's where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return "root"


def to_remove(path: Path) -> bool:
    """Whether a path is there and no service has to be told that it goes."""
    return UNITS not in path.parents and (path.is_symlink() or path.exists())


def not_taken_up(given: dict[str, Any], state: State) -> Iterator[str]:
    """What the service needs for files that are as they shall be, and that it runs without."""
    now, booted = time.time(), time.time() - time.monotonic()
    files = [(file.path, taken_up_by) for file, _, taken_up_by in wanted(given)]
    for path, taken_up_by in [*files, *((Path(path), "reload") for path in given["reads"])]:
        written = path.stat().st_mtime if path.exists() else 0
        # Of a file from the future nobody knows when it was written.
        if written <= now and not state.has_taken_up(written - booted, taken_up_by):
            yield taken_up_by


def beside(release: str | None) -> list[Path]:
    """Other versions, and what is left of their installation."""
    return [path for path in sorted(Path(release).parent.iterdir()) if path != Path(release)] if release else []


def configure(module: AnsibleModule, given: dict[str, Any]) -> dict[str, Any]:
    """Do it all to one service, and tell what was done."""
    access = look(ROOT, answer, given["access"], addresses_of)
    vendor = Vendor(**given["vendor"]).and_any_of(access.packages) if given["vendor"] else None
    names = [*given["packages"], *(vendor.packages if vendor else [])]
    packages = read_packages(ROOT, run, names) if names else []
    there = {package.name for package in packages if package.configured}
    missing = list(dict.fromkeys([*(name for name in names if name not in there), *access.packages]))
    missing += [given["release"]] if given["release"] and not Path(given["release"]).is_dir() else []
    told = {"vendor": {**vendor.to_dict(), "todo": vendor.todo(packages, ROOT, run)}} if vendor else {}
    if missing:
        return {"changed": False, "missing": missing, "files": [], "access": [], "steps": [], "diff": [], **told}

    service = Service(module, given)
    changes = differing(given)
    removed = [path for path in map(Path, given["absent"]) if to_remove(path)]
    older = beside(given["release"])
    verbs = steps(service.state, [*(change.taken_up_by for change in changes), *not_taken_up(given, service.state)])
    diff = [change.diff for change in changes]
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
        if given["stamp"]:
            make_directories(Path(given["stamp"]).parent)
            Path(given["stamp"]).touch()
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
    beside = [ArgumentSpecValidator(BESIDE).validate(given) for given in module.params["beside"]]
    if mistakes := [mistake for each in beside for mistake in each.error_messages]:
        module.fail_json(msg=f"beside: {'; '.join(mistakes)}")
    try:
        first = configure(module, module.params)
        # O(stamp) of one of them may say that all is as it shall be.
        later = [] if first["missing"] else beside
        others = [configure(module, NO_SECRETS | each.validated_parameters) for each in later]
    except FleetError as error:
        module.fail_json(msg=str(error))
    diff = [one for service in (first, *others) for one in service.pop("diff")]
    changed = any(service["changed"] for service in (first, *others))
    module.exit_json(**first | {"changed": changed, "diff": diff, "beside": others})


if __name__ == "__main__":
    main()
