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
  - The module fails where a container of Docker that is somebody else's has the name of an instance's, C(vllm-ID).
  - The nodes of an instance that spans hosts are told the interface that has their address, unless O(environment) or
    the instance's own says otherwise. The module fails where none has it.
  - An instance waits at its start for its model, these directories, O(home) and O(link), which may be mounted late.
  - An instance that takes LoRA adapters has them in a file of their own, for which it does not restart; see the option
    C(adapters) of M(gpuhosts.vllm.engine_ready).
  - Every instance has a file with what its keeper is started from, the main process of its unit.
  - New options replace the old ones only when O(check) accepts them. It is asked about all of them before anything is
    written, in check mode as well where it is installed.
  - The files of an instance that is not wanted any more go when its unit neither runs nor would start at the next boot.
  - Opens the ports of the instances, as O(access) says, those between its nodes to the other hosts of an instance, and
    closes those of instances that are gone.
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
  unmet:
    description: What these instances need and this host is not given, in sentences; the module fails with them at once.
    type: list
    elements: str
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
    description: Where systemd makes a directory for every instance; its unit leaves a file V(started) there.
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
  programs:
    description: What the unit starts besides a release, content by path.
    type: dict
    default: {}
  times:
    description: What the keeper of an instance goes by, in seconds.
    type: dict
    suboptions:
      shutdown:
        description: That requests in flight get when an engine stops.
        type: int
        default: 60
      dead:
        description: Of silence, after which a node counts as lost.
        type: int
        default: 20
      hang:
        description: Without a token, after which an engine counts as hung.
        type: int
        default: 90
      start:
        description: That an engine may take until it is healthy.
        type: int
        default: 1800
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
  containers:
    description: What instances with C(runtime) V(docker) are started with; needed where there is one.
    type: dict
    suboptions:
      image:
        description: Name of their image on the host.
        type: str
        required: true
      wrapper:
        description: Which of O(programs) is the main process of such an instance.
        type: path
        required: true
      check:
        description: Python program that must accept new options; it runs in the image, with the path of a file.
        type: str
        required: true
      gpus:
        description: How Docker hands out GPUs.
        type: str
        choices: [cdi, legacy]
        default: cdi
      stop:
        description: Seconds that Docker gives such an engine when it is Docker itself that stops.
        type: int
        default: 120
      mounts:
        description: Directories besides those of the options that they may read.
        type: list
        elements: path
        default: []
  host:
    description:
      - The name of this host in the plan. With it every instance is asked once, as M(gpuhosts.vllm.engine_ready) asks,
        where there is nothing to do, which would take a task of its own.
    type: str
  good:
    description: What M(gpuhosts.vllm.engine_good) has kept, to tell whether it is what there is now.
    type: dict
    suboptions:
      file:
        description: Where it is kept.
        type: path
        required: true
      paths:
        description: What instances are started from, as patterns of the shell.
        type: list
        elements: path
        required: true
      mark:
        description: Local fact of a host that has gone back to it.
        type: path
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
  description: Whether the release is completely installed, the image is there, and user and group are as they shall be,
    each where an instance needs it.
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
  description: Instances that run, or wait at their start, from older files.
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
answers:
  description:
    - What M(gpuhosts.vllm.engine_ready) returns of every instance, with its C(id) and the C(rank) of its C(node) in
      C(item).
    - Empty without O(host), where there is something to do, where one may have adapters, and unless all answer at once.
  returned: success
  type: list
  elements: dict
kept:
  description: Whether there is something to go back to.
  returned: success
  type: bool
good:
  description: Whether there is nothing to do, and what there is was kept and not gone back to since.
  returned: success
  type: bool
start_seconds:
  description: What each instance took to start when it was last started by a playbook, by C(id).
  returned: success
  type: dict
  sample: {llama-3.3-70b-1: 93.4}
disturbed:
  description: Instances that run and have to stop, because they are to restart or not wanted any more.
  returned: success
  type: list
  elements: str
"""

import pwd
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.answer import answers_at_once
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.arguments import SPEC
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.configuration import (
    Unit,
    units_from_properties,
    work_to_do,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.container import DOCKER_FAILED, check_words
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.files import (
    Source,
    of_instance,
    wanted_directories,
    wanted_files,
    without_use,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.good import is_good, read
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.network import openings
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.refusals import refuse
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.start import in_container, runtime_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import AccessError, FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import addresses_of, look
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import has_image
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import diff_of, gid, newest, switch, unchecked
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import take
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.systemd import refusal

ROOT = Path("/")


def uses_release(given: dict[str, Any]) -> bool:
    """Whether an instance is started from the release; a host without instances has it for those that come."""
    return not given["instances"] or not all(map(in_container, given["instances"]))


def is_prepared(given: dict[str, Any]) -> bool:
    """Whether what instances are started from is completely installed, and the account is there as it shall be."""
    try:
        account = pwd.getpwnam(given["user"])
    except KeyError:
        return False
    found = (account.pw_gid, account.pw_dir, account.pw_shell)
    expected = (gid(given["group"]), given["home"], given["shell"])
    installed = not uses_release(given) or Path(given["release"], ".complete").exists()
    return found == expected and installed and (not any(map(in_container, given["instances"])) or image_is_there(given))


def image_is_there(given: dict[str, Any]) -> bool:
    """Whether Docker has the image."""
    return has_image(ROOT, given["containers"]["image"])


def asking(module: AnsibleModule, instance: dict[str, Any], candidate: Path) -> list[str]:
    """The command that asks vLLM about a file; none where that vLLM is not installed yet, in check mode."""
    given = module.params
    if in_container(instance):
        there = not module.check_mode or image_is_there(given)
        return check_words(runtime_of(given), instance, given["containers"]["check"], str(candidate)) if there else []
    there = not module.check_mode or all(Path(word).exists() for word in given["check"] if word.startswith("/"))
    return [*given["check"], str(candidate)] if there else []


def check_options(module: AnsibleModule, files: list[Source]) -> None:
    """Fail with the words of vLLM's own parser, unless it accepts the options."""
    instances = {instance["id"]: instance for instance in module.params["instances"]}
    for file in files:
        candidate = Path(module.tmpdir, file.path.name)
        candidate.write_text(file.content, encoding="utf-8")
        command = asking(module, instances[file.instance], candidate)
        if not command:
            continue
        code, output, errors = module.run_command(command, expand_user_and_vars=False)
        if code:
            said = (errors or output).strip().replace(str(candidate), str(file.path))
            refused = "vLLM does not accept its options" if code < DOCKER_FAILED else "no container of its image starts"
            module.fail_json(msg=f"{file.instance}: {refused}. Nothing was changed. {said}")


def check_unit(module: AnsibleModule, name: str, path: Path) -> None:
    """Fail unless systemd can read the unit."""
    said = refusal(module.run_command, name, path, Path(module.tmpdir))
    if said:
        module.fail_json(msg=f"{name}: systemd does not accept the unit. {said}")


def look_at_units(module: AnsibleModule, names: set[str]) -> dict[str, Unit]:
    """The units of instances."""
    if not names:
        return {}
    marks = {name: Path(module.params["runtime_directory"], name, "started") for name in names}
    started = {name: path.stat().st_mtime for name, path in marks.items() if path.exists()}
    units = [f"vllm@{name}.service" for name in sorted(names)]
    command = ["systemctl", "show", "--property=Id,ActiveState,UnitFileState", *units]
    found = units_from_properties(module.run_command(command, check_rc=True)[1], started)
    return {name: found.get(name, Unit()) for name in names}


def printed(module: AnsibleModule, command: list[str]) -> str:
    """What a command prints."""
    return str(module.run_command(command)[1])


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
        lists: tuple[str, ...] = ("files", "access", "restart", "start", "remove", "disturbed", "answers")
        nothing = dict.fromkeys(("changed", "prepared", "differs", "kept", "good"), False)
        return {**nothing, **{name: [] for name in lists}, "start_seconds": {}}

    directories = [place for place in wanted_directories(given) if place.differs()]
    refuse(given, ROOT)
    files = list(wanted_files(given))
    before = {file: file.before() for file in files}
    rewritten = [file for file in files if before[file] != file.content]
    disowned = [file for file in files if file not in rewritten and not file.is_owned()]
    points_to = str(link.readlink()) if link.is_symlink() else ""
    switching = uses_release(given) and points_to != given["release"]
    released = {instance["id"] for instance in given["instances"] if not in_container(instance)}
    switched = released if switching else set()  # another release may refuse what the one before took
    anew = {name for name in wanted if any(file.starts(name) for file in rewritten)} | switched
    asked = {file.instance for file in rewritten if file.instance} | switched
    check_options(module, [file for file in files if file.options and file.instance in asked])

    there = {path.stem for path in directory.glob("*.yaml")}
    units = look_at_units(module, wanted | there)
    gone = [name for name in sorted(there - wanted) if not (units[name].runs or units[name].enabled)]
    removed = [path for name in gone for path in of_instance(name, given) if path.exists()] + without_use(given)

    diff = [diff_of(place.path, "", f"{place.path}/\n") for place in directories if not place.path.is_dir()]
    diff += [diff_of(file.path, before[file] or "", file.content) for file in rewritten if not file.secret]
    diff += [diff_of(link, f"{points_to}\n" if points_to else "", f"{given['release']}\n")] if switching else []
    diff += [diff_of(path, f"{path}\n", "") for path in removed]
    access = look(ROOT, answer, given["access"], addresses_of, lambda: openings(given["instances"]))
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

    sources = {name: [file.path for file in files if file.starts(name)] for name in wanted}
    touched = {name: newest([*sources[name], *([link] if name in released else [])]) for name in wanted}
    work = work_to_do(wanted, units, touched, anew)
    written = [place.path for place in (*directories, *rewritten, *disowned)]
    changed = bool(written or switching or removed or access.says)
    settled = not (changed or work.restart or work.start or work.remove)
    kept = read(Path(given["good"]["file"])) if given["good"] else None
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
        "answers": answers_at_once(partial(printed, module), given) if given["host"] and settled else [],
        "kept": bool(kept),
        "good": settled and is_good(kept, given),
        "start_seconds": (kept or {}).get("seconds", {}),
        "diff": diff,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    if module.params["unmet"]:
        module.fail_json(msg=" ".join(module.params["unmet"]))
    try:
        module.exit_json(**configure(module))
    except FleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
