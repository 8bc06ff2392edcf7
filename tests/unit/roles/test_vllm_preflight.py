"""Which hosts the role vllm refuses before anything is changed, and what cures it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
NEWER_PYTHON = (
    "installs python3.12. Ansible, which looks for the newest Python, would run its modules by that one, without what "
    "the system's knows of packages and SELinux. Set ansible_python_interpreter to /usr/bin/python3 for this host."
)
PIP_ALONE = (
    "runs Ubuntu 22.04, whose Python is too old for vLLM. Only uv can bring another one: set vllm_installer to auto, "
    "or install Python 3.11 or newer with its venv module and its headers there and set vllm_python to it."
)
ALL = (
    "Debian 12, Debian 13, Ubuntu 22.04, Ubuntu 24.04, Ubuntu 26.04, RedHat 9, RedHat 10, Rocky 9, Rocky 10, "
    "AlmaLinux 9, AlmaLinux 10, OracleLinux 9, OracleLinux 10"
)
# Each with what it is refused for, "" for nothing.
HOSTS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "unknown": (
        "Devuan",
        "12",
        {},
        f"runs Devuan 12; the role vllm is made for {ALL}. Reinstall the host or take it out of gpu_hosts.",
    ),
    "old": ("Ubuntu", "20.04", {}, "runs Ubuntu 20.04; the role vllm is made for Debian 12,"),
    "discovered": ("Rocky", "9.6", {}, f"runs Rocky 9.6, where the role vllm {NEWER_PYTHON}"),
    "silent": ("AlmaLinux", "9.6", {"ansible_python_interpreter": "auto_silent"}, NEWER_PYTHON),
    "newer": ("RedHat", "9.4", {"ansible_python_interpreter": "/usr/bin/python3.12"}, NEWER_PYTHON),
    "pinned": ("Rocky", "9.6", {"ansible_python_interpreter": "/usr/bin/python3"}, ""),
    "platform": ("RedHat", "9.6", {"ansible_python_interpreter": "/usr/libexec/platform-python"}, ""),
    "el10": ("AlmaLinux", "10.1", {}, ""),
    "noble": ("Ubuntu", "24.04", {}, ""),
    "jammy": ("Ubuntu", "22.04", {}, ""),
    "pip": ("Ubuntu", "22.04", {"vllm_installer": "pip"}, PIP_ALONE),
    "hasty": (
        "Ubuntu",
        "24.04",
        {"vllm_stop_timeout": 79},
        "vllm_stop_timeout (79 s) must be at least 20 s more than vllm_shutdown_timeout (60 s), or systemd kills",
    ),
    "nervous": (
        "Ubuntu",
        "24.04",
        {"vllm_hang_timeout": 29},
        "vllm_hang_timeout (29 s) must be 30 s or more, and vllm_dead_timeout (20 s) 5 s or more, or sound engines",
    ),
    "strangers": (
        "Ubuntu",
        "24.04",
        {"vllm_instances": [{"id": "a"}, {"id": "b", "keeper": {"nodes": 2}}]},
        "and there is none. Set vllm_api_key, or vllm_keeper_token where the API is to be open.",
    ),
    "acquainted": (
        "Ubuntu",
        "24.04",
        {"vllm_instances": [{"id": "b", "keeper": {"nodes": 2}}], "vllm_api_key": "key"},
        "",
    ),
    "without Ray": (
        "Ubuntu",
        "24.04",
        {"vllm_instances": [{"id": "a", "ray": ["--head"]}], "vllm_lock": str(ROOT / "requirements-dev.txt")},
        "and there is no Ray in the lock file",
    ),
    "Ray in an image": (
        "Ubuntu",
        "24.04",
        {
            "vllm_instances": [{"id": "a", "ray": ["--head"], "container": {}}],
            "vllm_lock": str(ROOT / "requirements-dev.txt"),
            "vllm_image_digest": f"sha256:{'0' * 64}",
        },
        "",
    ),
    "with Ray": ("Ubuntu", "24.04", {"vllm_instances": [{"id": "a", "ray": ["--head"]}, {"id": "b", "ray": None}]}, ""),
    "python": ("Ubuntu", "22.04", {"vllm_installer": "pip", "vllm_python": "/usr/bin/python3.11"}, ""),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What every host is refused for, in one run for all."""
    place = tmp_path_factory.mktemp("play")
    hosts = {
        name: {"distribution": system, "release": release, **more} for name, (system, release, more, _) in HOSTS.items()
    }
    facts = {"distribution": "{{ distribution }}", "distribution_version": "{{ release }}", "cacheable": True}
    role = {"name": "gpuhosts.vllm.vllm", "tasks_from": "preflight", "public": True}
    unmet = {"ansible.builtin.fail": {"msg": "{{ _vllm_unmet | join(' ') }}"}, "when": "_vllm_unmet != []"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.set_fact": facts}, {"ansible.builtin.include_role": role}, unmet],
    }
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", str(place / "hosts.yml"), str(place / "play.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    text = re.sub(r"\s+", " ", done.stdout + done.stderr)
    return {
        name: " ".join(re.findall(rf"(?<=msg: ')?{name}:? ((?:runs|has|vllm_).*?)(?= fatal:| PLAY RECAP)", text))
        for name in hosts
    }


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_refused_for_what_would_fail_later(told: dict[str, str], host: str) -> None:
    expected = HOSTS[host][3]
    assert bool(told[host]) == bool(expected)
    assert expected in told[host]
