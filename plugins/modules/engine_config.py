#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_config
short_description: Write what the vLLM instances of a host are started from, and tell which have to start anew
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Writes the options and the environment of every instance, the secrets and the unit that they share, the local fact
    that tells the planner what is placed here, and the link to the release in use, with the directories that they lie
    in. Starts and stops nothing.
  - A directory outside O(home) that an instance's environment names for it to write to, such as E(HF_HOME), is opened
    for it in its sandbox, and made for O(user) where it is missing. The module fails where O(user) may not write to it.
  - An instance waits at its start for its model, these directories, O(home) and O(link), which may be mounted late.
  - New options replace the old ones only when O(check) accepts them. It is asked about all of them before anything is
    written, in check mode as well where it is installed.
  - The files of an instance that is not wanted any more go when its unit neither runs nor would start at the next boot.
  - Opens the ports of the instances, as O(access) says, and closes those of instances that are gone.
extends_documentation_fragment:
  - gpuhosts.vllm.attributes
  - gpuhosts.vllm.access
attributes:
  check_mode:
    details: The return values tell what will have to be done once the files are written.
  diff_mode:
    support: full
    details: Not of the secrets.
options:
  instances:
    description:
      - Instances that are wanted on this host, each with V(id) (its unit is C(vllm@ID.service)), V(engine_args)
        (options of C(vllm serve), without the leading dashes) and V(env), whose variables win over O(environment).
      - V(model), V(endpoint) and V(node) go into the local fact. Other keys are passed over.
    type: list
    elements: dict
    required: true
  environment:
    description: Environment variables of every instance.
    type: dict
    default: {}
  secrets:
    description: Environment variables of every instance that only root may read.
    type: dict
    default: {}
  secrets_file:
    description: Where the secrets lie.
    type: path
    required: true
  directory:
    description: Where the files of the instances lie.
    type: path
    required: true
  runtime_directory:
    description: Where systemd makes a directory for every instance that it starts.
    type: path
    default: /run/vllm
  fact_file:
    description: Where the local fact lies that tells the planner what is placed here.
    type: path
    required: true
  user:
    description: User that the instances run as.
    type: str
    required: true
  group:
    description: Its group, which may read the files of the instances.
    type: str
    required: true
  home:
    description: Its home, which nobody else may look into.
    type: path
    required: true
  shell:
    description: Its shell.
    type: path
    default: /usr/sbin/nologin
  header:
    description: Comment at the top of every file.
    type: str
    default: ""
  unit_file:
    description: Where the unit of all instances lies.
    type: path
    required: true
  unit:
    description: What the unit says.
    type: str
    required: true
  needrestart_file:
    description: Where needrestart is told to leave the instances alone. Written where needrestart is installed.
    type: path
  link:
    description: Link to the release in use.
    type: path
    required: true
  release:
    description: What the link shall point to.
    type: path
    required: true
  check:
    description: Command that must accept new options, as a list of words; the path of a file is added to it.
    type: list
    elements: str
    required: true
  only_prepared:
    description: Whether to do nothing, and return nothing to do, where the host is not RV(prepared).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Configure the instances
  gpuhosts.vllm.engine_config:
    instances:
      - id: llama-3.3-70b-1
        model: llama-3.3-70b
        endpoint: {address: 10.0.0.11, port: 8000}
        node: {rank: 0, gpus: [{index: 0, uuid: GPU-8e3f}]}
        engine_args: {model: meta-llama/Llama-3.3-70B-Instruct, port: 8000}
    directory: /etc/vllm/instances
    secrets_file: /etc/vllm/secrets.env
    fact_file: /etc/ansible/facts.d/gpuhosts_vllm.fact
    user: vllm
    group: vllm
    home: /var/lib/vllm
    unit_file: /etc/systemd/system/vllm@.service
    unit: "{{ lookup('ansible.builtin.template', 'vllm@.service.j2') }}"
    link: /opt/vllm/current
    release: /opt/vllm/versions/0.33.0
    check: [/opt/vllm/versions/0.33.0/bin/python, -c, "{{ lookup('ansible.builtin.file', 'check_config.py') }}"]
  register: configuration
"""

RETURN = r"""
prepared:
  description: Whether the release is completely installed, and user and group are there as they shall be.
  returned: success
  type: bool
differs:
  description: Whether there is something to write or to remove.
  returned: success
  type: bool
files:
  description: Paths that were written or removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/vllm/instances/llama-3.3-70b-1.yaml]
access:
  description: What was changed in the firewall and in SELinux, as sentences.
  returned: success
  type: list
  elements: str
  sample: ["firewalld: TCP port 8000 for 10.0.0.2 is open"]
restart:
  description: Instances that run from older files.
  returned: success
  type: list
  elements: str
  sample: [llama-3.3-70b-1]
start:
  description: Instances that do not run, or would not at the next boot.
  returned: success
  type: list
  elements: str
remove:
  description: Instances that are not wanted any more.
  returned: success
  type: list
  elements: str
disturbed:
  description: Instances that run and have to stop, because they are to restart or not wanted any more.
  returned: success
  type: list
  elements: str
  sample: [llama-3.3-70b-1]
"""

import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.configuration import (
    Unit,
    environment_file,
    local_fact,
    options_file,
    units_from_properties,
    work_to_do,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.directories import (
    drop_in,
    is_below,
    unusable,
    written,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import AccessError, FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import ARGUMENTS, addresses_of, look
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import (
    Directory,
    File,
    closed_to,
    diff_of,
    gid,
    is_directory,
    may_write,
    unchecked,
    unmounted,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import take
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.systemd import refusal

SPEC: dict[str, dict[str, Any]] = {
    "instances": {"type": "list", "elements": "dict", "required": True},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "secrets_file": {"type": "path", "required": True, "no_log": False},
    "directory": {"type": "path", "required": True},
    "runtime_directory": {"type": "path", "default": "/run/vllm"},
    "fact_file": {"type": "path", "required": True},
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "home": {"type": "path", "required": True},
    "shell": {"type": "path", "default": "/usr/sbin/nologin"},
    "header": {"type": "str", "default": ""},
    "unit_file": {"type": "path", "required": True},
    "unit": {"type": "str", "required": True},
    "needrestart_file": {"type": "path"},
    "link": {"type": "path", "required": True},
    "release": {"type": "path", "required": True},
    "check": {"type": "list", "elements": "str", "required": True},
    "only_prepared": {"type": "bool", "default": False},
    "access": {"type": "dict", "options": ARGUMENTS},
}
ROOT = Path("/")


# Perl, as its own configuration: it would restart a service whose libraries were updated, whatever it is doing.
NEEDRESTART = "$nrconf{override_rc}{qr(^vllm@.+[.]service)} = 0;\n"


@dataclass(frozen=True)
class Source(File):
    """A file that instances are started from."""

    instance: str | None = ""  # "": every one is, None: none
    options: bool = False  # the argument parser of the release has to accept it
    unit: bool = False  # systemd has to accept it
    secret: bool = False  # no diff shows it


def is_prepared(given: dict[str, Any]) -> bool:
    """Whether the release is completely installed, and the account is there as it shall be."""
    try:
        account = pwd.getpwnam(given["user"])
    except KeyError:
        return False
    found = (account.pw_gid, account.pw_dir, account.pw_shell)
    expected = (gid(given["group"]), given["home"], given["shell"])
    return found == expected and Path(given["release"], ".complete").exists()


def variables_of(instance: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The environment of an instance, without secrets."""
    return {**given["environment"], **instance.get("env", {})}


def opened(instance: dict[str, Any], given: dict[str, Any]) -> dict[str, str]:
    """The directories outside its user's home that an instance is to write to, by what names them."""
    named = written(instance["engine_args"], variables_of(instance, given))
    return {name: path for name, path in named.items() if not is_below(path, given["home"])}


def drop_in_path(name: str, given: dict[str, Any]) -> Path:
    """Where systemd finds what is said of one instance beside the unit."""
    unit = Path(given["unit_file"])
    return unit.with_name(f"{unit.stem}{name}{unit.suffix}.d") / "places.conf"


def wanted_directories(given: dict[str, Any]) -> list[Directory]:
    """All directories, each as it shall be; those that instances write to only where they are missing."""
    used = sorted({path for instance in given["instances"] for path in opened(instance, given).values()})
    return [
        Directory(Path(given["directory"]), 0o755),
        Directory(Path(given["home"]), 0o750, given["user"], given["group"]),
        Directory(Path(given["fact_file"]).parent, 0o755),
        *(Directory(drop_in_path(instance["id"], given).parent, 0o755) for instance in given["instances"]),
        *(Directory(Path(path), 0o750, given["user"], given["group"]) for path in used if not is_directory(Path(path))),
    ]


def wanted_files(given: dict[str, Any]) -> Iterator[Source]:
    """All files, each as it shall be, the unit last: systemd looks whether what it is to start is there."""
    header, directory, group = given["header"], Path(given["directory"]), given["group"]
    for instance in given["instances"]:
        name = instance["id"]
        options = options_file(instance["engine_args"], header)
        variables = environment_file(variables_of(instance, given), header)
        yield Source(directory / f"{name}.yaml", 0o640, "root", group, options, name, options=True)
        yield Source(directory / f"{name}.env", 0o640, "root", group, variables, name)
        model, written_to = str(instance["engine_args"].get("model", "")), opened(instance, given).values()
        needed = [given["link"], given["home"], *([model] if model.startswith("/") else []), *written_to]
        yield Source(drop_in_path(name, given), 0o644, content=drop_in(needed, written_to, header), instance=name)
    secrets = environment_file(given["secrets"], header)
    yield Source(Path(given["secrets_file"]), 0o600, content=secrets, secret=True)
    fact = json.dumps(local_fact(given["instances"]), indent=2) + "\n"
    yield Source(Path(given["fact_file"]), 0o644, content=fact, instance=None)
    needrestart = given["needrestart_file"]
    if needrestart and Path(needrestart).parent.is_dir():
        yield Source(Path(needrestart), 0o644, content=header + NEEDRESTART, instance=None)
    yield Source(Path(given["unit_file"]), 0o644, content=given["unit"], unit=True)


def check_options(module: AnsibleModule, files: list[Source]) -> None:
    """Fail with the words of vLLM's own parser, unless it accepts the options."""
    command = module.params["check"]
    if module.check_mode and not all(Path(word).exists() for word in command if word.startswith("/")):
        return  # the release is not installed yet
    for file in files:
        candidate = Path(module.tmpdir, file.path.name)
        candidate.write_text(file.content, encoding="utf-8")
        code, output, errors = module.run_command([*command, str(candidate)], expand_user_and_vars=False)
        if code:
            said = (errors or output).strip().replace(str(candidate), str(file.path))
            module.fail_json(msg=f"{file.instance}: vLLM does not accept its options. Nothing was changed. {said}")


def check_directories(module: AnsibleModule) -> None:
    """Fail unless every instance can write where it is told to."""
    user, group = module.params["user"], module.params["group"]
    for instance in module.params["instances"]:
        for name, path in opened(instance, module.params).items():
            where = f"{instance['id']}: {name} is {path},"
            reason = unusable(path)
            if reason:
                module.fail_json(msg=f"{where} and {reason}.")
            place = unmounted(Path(path))
            if place:
                remedy = f"Mount it there with `mount {place}`, or take it out of /etc/fstab."
                module.fail_json(msg=f"{where} and nothing is mounted at {place}, as /etc/fstab wants it. {remedy}")
            place = closed_to(user, Path(path))
            if place:
                remedy = f"Let it with `chmod a+x {place}`, or name another directory."
                module.fail_json(msg=f"{where} and the user {user} may not pass through {place}. {remedy}")
            if is_directory(Path(path)) and not may_write(user, Path(path)):
                remedy = f"Give it to the engines with `chown {user}:{group} {path}`, or name another directory."
                module.fail_json(msg=f"{where} where the user {user} may not write. {remedy}")


def check_unit(module: AnsibleModule, name: str, path: Path) -> None:
    """Fail unless systemd can read the unit."""
    said = refusal(module.run_command, name, path, Path(module.tmpdir))
    if said:
        module.fail_json(msg=f"{name}: systemd does not accept the unit. {said}")


def look_at_units(module: AnsibleModule, names: set[str]) -> dict[str, Unit]:
    """The units of instances."""
    if not names:
        return {}
    runtime = {name: Path(module.params["runtime_directory"], name) for name in names}
    started = {name: path.stat().st_mtime for name, path in runtime.items() if path.exists()}
    units = [f"vllm@{name}.service" for name in sorted(names)]
    command = ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", *units]
    found = units_from_properties(module.run_command(command, check_rc=True)[1], started)
    return {name: found.get(name, Unit()) for name in names}


def newest(paths: list[Path]) -> float:
    """When the youngest of the paths was written, a link taken for itself; 0: there is none."""
    return max((path.lstat().st_mtime for path in paths if os.path.lexists(path)), default=0)


def switch(link: Path, release: str) -> None:
    """Let the link point to the release, in one rename."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(release)
    new.replace(link)


def remove(path: Path) -> None:
    """Remove a file, and the directory that systemd reads beside a unit with the last one in it."""
    path.unlink()
    if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
        path.parent.rmdir()


def configure(module: AnsibleModule) -> dict[str, Any]:
    """Do it all, and tell what was done."""
    given = module.params
    wanted = {instance["id"] for instance in given["instances"]}
    directory, link = Path(given["directory"]), Path(given["link"])
    prepared = is_prepared(given)
    if given["only_prepared"] and not prepared:
        lists: tuple[str, ...] = ("files", "access", "restart", "start", "remove", "disturbed")
        return {"changed": False, "prepared": False, "differs": False, **{name: [] for name in lists}}

    directories = [place for place in wanted_directories(given) if place.differs()]
    check_directories(module)
    files = list(wanted_files(given))
    before = {file: file.before() for file in files}
    rewritten = [file for file in files if before[file] != file.content]
    disowned = [file for file in files if file not in rewritten and not file.is_owned()]
    points_to = str(link.readlink()) if link.is_symlink() else ""
    switching = points_to != given["release"]
    # Another release may refuse what the old one took.
    check_options(module, [file for file in (files if switching else rewritten) if file.options])

    there = {path.stem for path in directory.glob("*.yaml")}
    units = look_at_units(module, wanted | there)
    gone = [name for name in sorted(there - wanted) if not (units[name].runs or units[name].enabled)]
    # The .yaml goes last: it is what tells the next run that there is something to remove.
    places = [(drop_in_path(name, given), directory / f"{name}.env", directory / f"{name}.yaml") for name in gone]
    removed = [path for paths in places for path in paths if path.exists()]

    diff = [diff_of(place.path, "", f"{place.path}/\n") for place in directories if not place.path.is_dir()]
    diff += [diff_of(file.path, before[file] or "", file.content) for file in rewritten if not file.secret]
    diff += [diff_of(link, f"{points_to}\n" if points_to else "", f"{given['release']}\n")] if switching else []
    diff += [diff_of(path, f"{path}\n", "") for path in removed]
    access = look(ROOT, answer, given["access"], addresses_of)
    diff += access.diff
    if access.packages:
        raise AccessError(
            f"{'; '.join(access.says)}: that takes {', '.join(access.packages)}. Install it on this host."
        )
    for warning in access.warnings:
        module.warn(warning)

    if not module.check_mode:
        for place in directories:
            place.make()
        for file in disowned:
            file.own(file.path)
        if switching:
            switch(link, given["release"])
        for file in rewritten:
            file.write(partial(check_unit, module, file.path.name) if file.unit else unchecked)
        for path in removed:
            remove(path)
        take([*access.selinux, *access.firewall])

    everyone = switching or any(file.instance == "" for file in rewritten)
    anew = wanted if everyone else {file.instance for file in rewritten if file.instance}
    touched = {name: newest([link, *(file.path for file in files if file.instance in ("", name))]) for name in wanted}
    work = work_to_do(wanted, units, touched, anew)
    written = [place.path for place in (*directories, *rewritten, *disowned)]
    changed = bool(written or switching or removed or access.says)
    return {
        "changed": changed,
        "prepared": prepared,
        "differs": changed or bool(work.remove),
        "files": [str(path) for path in [*written, *removed]],
        "access": access.says,
        "restart": work.restart,
        "start": work.start,
        "remove": work.remove,
        "disturbed": work.disturbed,
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
