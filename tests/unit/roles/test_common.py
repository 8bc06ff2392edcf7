"""What the role common asks of dnf. Only its part for apt is run for real (molecule/containers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TASKS = Path(__file__).resolve().parents[3] / "roles/common/tasks"
PINS = {"docker-ce": "29.7.2-1.el9"}
REPOSITORY = {"name": "stable", "file": "engine", "description": "Engine", "baseurl": "http://m/9", "gpgcheck": "1"}
VENDOR = {
    "wanted": ["docker-ce-29.7.2-1.el9"],
    "pins": PINS,
    "key": {"url": "http://mirror/gpg", "fingerprint": "060A"},
    "repository": REPOSITORY,
}
LEFT_OUT = "left out"


def arguments(file: str, module: str, number: int = 0, **variables: Any) -> dict[str, Any]:
    """Arguments of one of the tasks of a module in a file; what they say with {{ }} has its value."""
    tasks = [task for task in yaml.safe_load((TASKS / file).read_text()) if module in task]
    templar = Templar(DataLoader(), variables={"common_vendor": VENDOR, "omit": LEFT_OUT, **variables})
    found = {
        name: templar.template(trust_as_template(value)) if isinstance(value, str) else value
        for name, value in tasks[number][module].items()
    }
    return {name: value for name, value in found.items() if value != LEFT_OUT}


def test_key_and_repository() -> None:
    key = arguments("repository_dnf.yml", "ansible.builtin.rpm_key")
    assert key == {"key": "http://mirror/gpg", "fingerprint": "060A"}
    repository = arguments("repository_dnf.yml", "ansible.builtin.yum_repository")
    assert {"owner": "root", "group": "root", "mode": "0644"}.items() <= repository.items()
    assert {name: repository[name] for name in REPOSITORY} == REPOSITORY
    assert not {"gpgkey", "repo_gpgcheck", "module_hotfixes"} & set(repository)


def test_a_repository_whose_packages_no_module_hides() -> None:
    vendor = {**VENDOR, "repository": {**REPOSITORY, "module_hotfixes": "1"}}
    repository = arguments("repository_dnf.yml", "ansible.builtin.yum_repository", common_vendor=vendor)
    assert repository["module_hotfixes"] == "1"


def test_what_is_installed_is_locked_first() -> None:
    tasks = yaml.safe_load((TASKS / "packages_dnf.yml").read_text())
    modules = [next(name for name in task if name.startswith("ansible.builtin.")) for task in tasks]
    assert modules == ["ansible.builtin.dnf", "ansible.builtin.lineinfile", "ansible.builtin.dnf"]

    (item,) = ({"key": name, "value": version} for name, version in PINS.items())
    lock = arguments("packages_dnf.yml", "ansible.builtin.lineinfile", item=item)
    assert lock["line"] == "docker-ce-29.7.2-1.el9.*"  # as `dnf versionlock add` writes it, but for the epoch
    assert lock["regexp"] == r"^docker\-ce-[0-9]"
    assert arguments("packages_dnf.yml", "ansible.builtin.dnf", 1)["name"] == VENDOR["wanted"]
