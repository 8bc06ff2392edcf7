"""Evaluates the defaults of all roles as a user's run does, with a given ansible-core and copy of the collection."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.lab import images
from tests.lab.settings import CACHE, ROOT

Values = Mapping[str, Mapping[str, Any]]  # role -> variable -> value

# What a run on a host that is supported knows of it when the role begins.
FACTS = {
    "distribution": "Debian",
    "distribution_major_version": "12",
    "distribution_version": "12.13",
    "os_family": "Debian",
}
# Preflights that look at nothing but facts and the controller.
PREFLIGHTS = ("alertmanager", "exporters", "nginx_lb", "prometheus", "vllm")
# What has no default that a preflight could accept: whether everybody may ask.
SAID = {"nginx_lb": {"nginx_lb_open": True}}

_NEWEST_PYTHON = "3.13"  # of the lab's image of Debian 13, for what needs more than the Python here


@dataclasses.dataclass(frozen=True)
class Core:
    """An ansible-core: how to start its ``ansible-playbook``, and what it needs in its environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image: str | None = None  # to start it in

    def playbook(self, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
        """Run ``ansible-playbook`` where only what is below ``home`` can be found."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
        ours = {**self.environment, "ANSIBLE_COLLECTIONS_PATH": str(home), "HOME": str(home)}
        command = [*self.command, *arguments]
        if self.image:
            mounts = [f"--volume={place}:{place}" for place in (home, self.environment["PYTHONPATH"])]
            variables = [f"--env={key}={value}" for key, value in ours.items()]
            user = f"--user={os.getuid()}:{os.getgid()}"
            command = ["docker", "run", "--rm", user, f"--workdir={home}", *mounts, *variables, self.image, *command]
        return subprocess.run(
            command, cwd=home, env=environment | ours, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip


def pinned() -> Core:
    """The ansible-core of the virtual environment that the tests run in."""
    return Core((sys.executable, "-m", "ansible", "playbook"))


def oldest() -> Core:
    """The oldest that meta/runtime.yml promises, with the Python of this machine."""
    required = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["requires_ansible"]
    (version,) = re.fullmatch(r">=([\d.]+)", required).groups()  # type: ignore[union-attr]
    place = _packages(f"ansible-core=={version}", ".".join(platform.python_version_tuple()[:2]))
    return Core(pinned().command, {"PYTHONPATH": str(place)})


def newest() -> Core:
    """The newest that the package index has today, in the lab's image of Debian 13: it wants a newer Python."""
    place = _packages("ansible-core", _NEWEST_PYTHON)
    return Core(("python3", "-m", "ansible", "playbook"), {"PYTHONPATH": str(place)}, images.tag("trixie"))


def _packages(requirement: str, python: str) -> Path:
    """A directory with a package and all that it needs, for a version of Python that this machine need not have."""
    place = CACHE / "ansible" / f"{requirement}-{python}"
    uv = CACHE / "ansible" / "uv" / "bin" / "uv"
    if not uv.exists():
        venv.create(uv.parents[1], with_pip=True)
        subprocess.run([uv.parent / "python", "-m", "pip", "install", "--quiet", "uv"], check=True)
    if "==" not in requirement:  # what was the newest yesterday may not be so today
        shutil.rmtree(place, ignore_errors=True)
    if not place.is_dir():
        unfinished = place.with_name(place.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--quiet", "--target", str(unfinished), "--python-version", python, "--only-binary", ":all:"]
        subprocess.run([uv, "pip", "install", *options, requirement], check=True)
        unfinished.rename(place)
    return place


def checkout(home: Path) -> Path:
    """A copy of what git tracks of this checkout, below ``home``; returns where collections are in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = ROOT / name, home / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return home / "collections"


def evaluate(core: Core, collections: Path) -> Values:
    """The values of all defaults, and of the constants that hold a lookup, after the roles' own preflights.

    ``collections`` is a throw-away copy: every role gets one file more.
    """
    roles = collections / "ansible_collections/gpuhosts/vllm/roles"
    tasks: list[dict[str, Any]] = [{"ansible.builtin.set_fact": {**FACTS, "cacheable": True}}]
    out = collections / "values"
    out.mkdir()
    for role in sorted(path.parent.name for path in roles.glob("*/tasks")):
        variables = [*_variables(roles / role / "defaults/main.yml"), *_lookups(roles / role)]
        if not variables:
            continue
        record = "{{ {" + ", ".join(f"'{name}': {name}" for name in variables) + "} | to_json }}"
        copy = {"ansible.builtin.copy": {"dest": f"{out}/{role}.json", "content": record}}
        (roles / role / "tasks/evaluate_defaults.yml").write_text(yaml.safe_dump([copy]))
        entries = [*(["preflight"] if role in PREFLIGHTS else []), "evaluate_defaults"]
        includes = [{"name": f"gpuhosts.vllm.{role}", "tasks_from": entry} for entry in entries]
        tasks += [{"ansible.builtin.include_role": include, "vars": SAID.get(role, {})} for include in includes]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    book = collections / "evaluate.yml"
    book.write_text(yaml.safe_dump([play]))
    done = core.playbook(str(book), home=collections)
    assert done.returncode == 0, done.stdout
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


def _variables(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def _lookups(role: Path) -> list[str]:
    return [name for name, value in constants(role).items() if re.search(r"\b(lookup|query|q)\(", str(value))]


def constants(role: Path) -> dict[str, Any]:
    """What the files below ``vars`` of a role say, which are one to Ansible."""
    return {name: value for path in sorted(role.glob("vars/**/*.yml")) for name, value in _variables(path).items()}


def judge(values: Values) -> None:
    """Every role was evaluated, and what a default says is in the collection is there."""
    roles = {path.parent.name for path in ROOT.glob("roles/*/defaults") if _variables(path / "main.yml")}
    assert set(values) == roles
    for role, variables in values.items():
        for name, value in variables.items():
            for one in value if isinstance(value, list) else [value]:
                if f"/roles/{role}/" in str(one):
                    assert Path(one).is_file(), f"{name}: there is no {one}"
    release = values["vllm"]["_vllm_release"]
    assert release.startswith(values["vllm"]["vllm_version"] + "-")
