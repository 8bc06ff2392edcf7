"""Who reaches the front door through the firewall of its host, and what SELinux's policy is told."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from front_door import FrontDoor

# Somebody's own, which lets nobody in.
RULESET = """
table inet own {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established accept
        iifname lo accept
    }
}
"""
STORE = "/var/lib/selinux/default/active"


def is_open(client: FrontDoor, server: FrontDoor, port: int) -> bool:
    """Whether the host of one front door gets an answer from another one."""
    url = f"http://{server.address}:{port}/health"
    return bool(client.host.run("curl --silent --fail --max-time 2 %s", url).rc == 0)


def is_open_here(server: FrontDoor) -> bool:
    """Whether the machine that the tests run on gets an answer."""
    try:
        socket.create_connection((server.address, server.port), timeout=2).close()
    except OSError:
        return False
    return True


def ports(front_door: FrontDoor) -> set[str]:
    """The ports in the rules that the role has made."""
    show = "ufw status 2> /dev/null || firewall-cmd --policy=gpuhosts-nginx --list-rich-rules"
    lines = front_door.host.check_output(show).splitlines()
    return {port for line in lines for port in re.findall(r'(?:port="|^)(\d+)(?=[/"])', line)}


def test_another_port_is_for_those_only_who_may_reach_it(
    front_doors: list[FrontDoor], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    one, other = front_doors
    assert is_open_here(one)
    assert is_open_here(other)
    variables = {
        "nginx_lb_listen": ["8000"],  # SELinux knows it as a port of something else
        "nginx_lb_allow_from": ["{{ others[inventory_hostname.split('-') | last] }}"],
        "others": {"bookworm": other.address, "trixie": one.address},
        "ansible_python_interpreter": "/usr/local/bin/python-with-selinux",
    }
    result = converge("--extra-vars", json.dumps(variables))
    assert result.returncode == 0, result.stdout

    for front_door in front_doors:
        front_door.port = 8000
    assert [is_open(one, other, 8000), is_open(other, one, 8000), is_open(one, one, 8000)] == [True] * 3
    assert [is_open_here(one), is_open_here(other)] == [False] * 2
    assert [ports(front_door) for front_door in front_doors] == [{"8000"}, {"8000"}]
    other.host.check_output("firewall-cmd --reload")
    assert is_open(one, other, 8000)

    policy = {name: other.host.file(f"{STORE}/{name}.local").content_string for name in ("booleans", "ports")}
    assert "httpd_can_network_connect=1" in policy["booleans"].splitlines()
    assert "portcon tcp 8000 system_u:object_r:http_port_t:s0" in policy["ports"].splitlines()

    # A second run finds nothing to do. Where the ruleset is somebody's own, it says what to do, and that is right.
    other.host.check_output("systemctl stop firewalld")
    other.host.check_output("echo %s | nft --file -", RULESET)
    assert not is_open(one, other, 8000)
    again = converge("--check", "--extra-vars", json.dumps(variables))
    assert again.stdout.count("changed=0") == len(front_doors), again.stdout
    (remedy,) = re.findall(r"It lacks: (.*?)\. Put these rules", re.sub(r"\s+", " ", again.stdout))
    other.host.check_output(remedy)
    assert is_open(one, other, 8000)
