"""The engine (the stand-in for vLLM) on a host that is no Debian: installed, started, and answering."""

from __future__ import annotations

import json
from typing import Any

# By name of the host: how its virtual environment tells the Python that it was made with.
PYTHONS = {
    "ubuntu2204": "home = /opt/vllm/pythons/cpython-3.11.2-linux-x86_64-gnu/bin\n",
    "ubuntu2604": "command = /usr/bin/python3 -m venv",
    "rocky9": "command = /usr/bin/python3.12 -m venv",
    "rocky10": "command = /usr/bin/python3 -m venv",
}


def test_the_engine_answers(host: Any) -> None:
    request = json.dumps({"model": "tiny", "prompt": "Say hello.", "max_tokens": 8, "ignore_eos": True})
    answer = host.check_output("curl --silent --json %s http://127.0.0.1:8000/v1/completions", request)
    assert json.loads(answer)["usage"]["completion_tokens"] == 8
    assert host.service("vllm@tiny-1").is_enabled


def test_the_release_has_the_python_of_the_systems_row(host: Any) -> None:
    name = host.check_output("hostname")
    assert PYTHONS[name] in host.file("/opt/vllm/current/pyvenv.cfg").content_string
    made_with = host.check_output(
        "/opt/vllm/current/bin/python -c %s", "import os, sys; print(os.path.realpath(sys.prefix))"
    )
    assert made_with == host.file("/opt/vllm/current").linked_to


def test_uv_has_installed_it_and_is_gone(host: Any) -> None:
    release = host.file("/opt/vllm/current").linked_to
    assert host.check_output("cat %s/lib/python3*/site-packages/vllm-*.dist-info/INSTALLER", release) == "uv"
    assert not host.file(f"{release}.uv").exists
    assert host.run("find /opt/vllm ! -type l -perm /go+w").stdout == ""


def test_the_service_user_cannot_log_in(host: Any) -> None:
    user = host.user("vllm")
    assert (user.shell, user.home) == ("/usr/sbin/nologin", "/var/lib/vllm")


def test_what_it_writes_to_is_there_and_open(host: Any) -> None:
    pid = host.check_output("systemctl show --value --property MainPID vllm@tiny-1")
    assert host.file("/srv/huggingface").user == "vllm"
    # As the engine sees it.
    host.check_output("runuser --user vllm -- touch /proc/%s/root/srv/huggingface/new", pid)


def test_needrestart_leaves_it_alone_where_there_is_one(host: Any) -> None:
    is_ubuntu = host.check_output("hostname").startswith("ubuntu")
    assert host.file("/etc/needrestart/conf.d/vllm.conf").exists is is_ubuntu
