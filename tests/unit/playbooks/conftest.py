"""Playbooks on a fleet that is this machine four times over, with pretended GPUs."""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# One that answers nobody.
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-o ConnectTimeout=2"}


@dataclasses.dataclass(frozen=True)
class Done:
    """One finished ansible-playbook: its exit code, its output in one line, and the recap by host."""

    code: int
    text: str
    recap: dict[str, dict[str, int]]


Play = Callable[..., Done]


@pytest.fixture
def inventory(tmp_path: Path) -> dict[str, Any]:
    """The fleet; change it before it is played."""
    model = {"name": "tiny", "source": str(tmp_path / "tiny"), "replicas": 2, "parallelism": {"tensor": 1}}
    gpu1, gpu2, lb1, mon1 = (LOCAL | {"fleet_address": f"192.0.2.{number}"} for number in (1, 2, 3, 4))
    return {
        "gpu_hosts": {"hosts": {"gpu1": gpu1, "gpu2": gpu2}, "vars": {"vllm_models": [model]}},
        "load_balancers": {"hosts": {"lb1": lb1}, "vars": {"nginx_lb_open": True}},
        "monitoring": {"hosts": {"mon1": mon1}},
    }


def on_debian(place: Path, *names: str, other: str = "") -> str:
    """A playbook of some of the checkout's, for hosts of a distribution that all roles know, except ``other``, a group.

    One machine is hosts of several distributions, as plays do not gather again.
    """
    distribution = {
        "ansible_distribution": f"{{{{ 'Devuan' if {other!r} in group_names else 'Debian' }}}}",
        "ansible_distribution_version": "12",
        "ansible_distribution_major_version": "12",
        "ansible_os_family": "Debian",
    }
    gathered = {
        "hosts": "all",
        "gather_facts": True,
        "gather_subset": ["!all", "!min", "distribution", "local", "pkg_mgr", "service_mgr"],
        "tasks": [{"ansible.builtin.set_fact": distribution | {"cacheable": True}}],
        "tags": "always",
    }
    imported = [{"import_playbook": str(ROOT / f"playbooks/{name}.yml")} for name in names]
    (place / "play.yml").write_text(yaml.safe_dump([gathered, *imported]))
    return str(place / "play.yml")


@pytest.fixture
def play(inventory: dict[str, Any], ansible_environment: Callable[[str], dict[str, str]], tmp_path: Path) -> Play:
    """Run playbooks of the checkout on the fleet: their names, then options."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))

    def run(*arguments: str, gpus: str = "t4", environment: Mapping[str, str] | None = None) -> Done:
        place = tmp_path / "site"
        place.mkdir(exist_ok=True)
        (place / "hosts.yml").write_text(yaml.safe_dump(inventory))
        names = [f"playbooks/{name}.yml" for name in itertools.takewhile(str.isidentifier, arguments)]
        command = [program, "-i", str(place / "hosts.yml"), *names, *arguments[len(names) :]]
        around = {**ansible_environment(gpus), **(environment or {})}
        done = subprocess.run(
            command, cwd=ROOT, env=around, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        print(done.stdout)
        recap = {}
        for host, counts in re.findall(r"^(\S+)\s+: (ok=.*)$", done.stdout.rpartition("PLAY RECAP")[2], re.MULTILINE):
            recap[host] = {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        return Done(done.returncode, re.sub(r"\s+", " ", done.stdout), recap)

    return run
