"""What a host lacks of firewall rules and of SELinux, as its files and its tools tell it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import AccessError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import steps
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import Access, addresses_of, look
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import Step, take
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import Answer

Look = Callable[..., Access]
NOTHING = Access()
NAMES = {"lb1": ["10.0.0.2"], "localhost": ["127.0.0.1", "::1"]}


def rich(port: int, source: str) -> str:
    family = "ipv6" if ":" in source else "ipv4"
    return f'rule family="{family}" source address="{source}" port port="{port}" protocol="tcp" accept'


class Host:
    """A host below a directory, and what its tools answer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.errors = "Call failed: The name is not activatable"  # of a command that has no answer

    def file(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def ask(self, command: Sequence[str]) -> Answer:
        text = " ".join(command)
        self.asked.append(text)
        return next(
            (Answer(0, said) for end, said in self.answers.items() if text.endswith(end)), Answer(1, "", self.errors)
        )

    def look(self, ports: Sequence[str] = ("8000",), sources: Sequence[str] = ("10.0.0.2",), **more: Any) -> Access:
        usual: dict[str, Any] = {
            "name": "gpuhosts-test",
            "listens_on": ports,
            "allow_from": sources,
            "firewall": "auto",
        }
        usual |= {"protocols": [], "booleans": [], "port_type": "", "known_ports": [], "file_contexts": {}}
        openings = more.pop("openings", ())
        return look(self.root, self.ask, usual | more, lambda name: NAMES.get(name, []), lambda: openings)

    def commands(self, access: Access) -> list[str]:
        return [" ".join(step.command) for step in (*access.selinux, *access.firewall) if step.command]

    def firewalld(self, *rules: str) -> None:
        """Let firewalld run, with a policy of ours that has these rules now."""
        self.file("usr/bin/firewall-cmd")
        (self.root / "etc/firewalld/policies").mkdir(parents=True, exist_ok=True)
        settings = {"rich_rules": {"type": "as", "data": rules}}
        self.answers["getPolicySettings s gpuhosts-test"] = json.dumps({"type": "a{sv}", "data": [settings]})

    def firewalld_without_policy(self) -> None:
        """Let firewalld run, which knows nothing of us."""
        self.firewalld()
        del self.answers["getPolicySettings s gpuhosts-test"]
        self.errors = "Call failed: INVALID_POLICY: gpuhosts-test"

    def nft(self, chain: dict[str, Any], rules: Sequence[Any]) -> None:
        """Let there be a ruleset of nftables."""
        self.file("usr/sbin/nft")
        place = {"family": "inet", "table": "fw", "name": "input", "type": "filter", "hook": "input", "policy": "drop"}
        place |= chain
        table = {"nftables": [{"rule": {"chain": place["name"], "expr": rule}} for rule in rules]}
        self.answers["nft -j list chains"] = json.dumps({"nftables": [{"metainfo": {}}, {"chain": place}]})
        self.answers[f"list table {place['family']} {place['table']}"] = json.dumps(table)
        self.answers[f"list chain {place['family']} {place['table']} {place['name']}"] = json.dumps(table)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(steps.File, "own", lambda *_: None)  # only root gives files away
    return Host(tmp_path)


def test_a_host_without_firewall_and_selinux_is_asked_nothing(host: Host) -> None:
    assert host.look(booleans=["httpd_can_network_connect"]) == NOTHING
    assert host.look(sources=["a name that nobody knows"]) == NOTHING
    assert look(host.root, host.ask, None, addresses_of) == NOTHING
    assert host.asked == []


# firewalld


def test_a_new_policy_of_firewalld_needs_a_reload(host: Host) -> None:
    host.firewalld_without_policy()

    access = host.look(["80 default_server", "127.0.0.1:8080", "unix:/run/x"], ["0.0.0.0/0", "::/0", "localhost"])

    assert access.says == ["firewalld: TCP port 80 for 0.0.0.0/0 is open", "firewalld: TCP port 80 for ::/0 is open"]
    assert host.commands(access) == ["firewall-cmd --reload"]
    take(access.firewall[:1])
    text = (host.root / "etc/firewalld/policies/gpuhosts-test.xml").read_text()
    assert '<source address="::/0"/><port port="80" protocol="tcp"/><accept/>' in text
    assert "8080" not in text


def test_what_firewalld_has_is_left_alone_for_now_and_for_later(host: Host) -> None:
    host.firewalld_without_policy()
    take(host.look().firewall[:1])
    host.firewalld(rich(8000, "10.0.0.2"))

    assert host.look() == NOTHING

    (host.root / "etc/firewalld/policies/gpuhosts-test.xml").unlink()  # would be gone with a reload
    assert host.look().says == ["firewalld: policy gpuhosts-test lasts"]
    assert host.commands(host.look()) == []


def test_other_rules_of_firewalld_take_the_place_of_ours_without_a_reload(host: Host) -> None:
    host.firewalld(rich(8000, "10.0.0.2"), rich(8001, "10.0.0.2"))

    access = host.look(["8000", "8002"])

    assert access.says == [
        "firewalld: TCP port 8002 for 10.0.0.2 is open",
        "firewalld: no longer open: TCP port 8001 for 10.0.0.2",
    ]
    assert host.commands(access) == [
        f"firewall-cmd --policy=gpuhosts-test --add-rich-rule={rich(8002, '10.0.0.2')}",
        f"firewall-cmd --policy=gpuhosts-test --remove-rich-rule={rich(8001, '10.0.0.2')}",
    ]


def test_a_policy_of_firewalld_goes_with_its_last_rule(host: Host) -> None:
    path = host.file("etc/firewalld/policies/gpuhosts-test.xml", "<policy/>")
    host.firewalld(rich(8000, "10.0.0.2"))

    access = host.look([])

    assert access.says == ["firewalld: no longer open: TCP port 8000 for 10.0.0.2"]
    take(step for step in access.firewall if step.remove)
    assert not path.exists()
    host.firewalld()
    assert host.look([]) == NOTHING


def test_a_firewalld_that_does_not_run_is_none(host: Host) -> None:
    host.file("usr/bin/firewall-cmd")

    assert host.look() == NOTHING


# ufw

RULES = """
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in

### tuple ### allow tcp 8000 0.0.0.0/0 any 10.0.0.2 in comment=677075686f7374732d74657374
-A ufw-user-input -p tcp --dport 8000 -s 10.0.0.2 -j ACCEPT
### tuple ### allow tcp 8001 0.0.0.0/0 any 10.0.0.2 in comment=677075686f7374732d74657374
### tuple ### allow tcp 8002 0.0.0.0/0 any 10.0.0.2 in
### tuple ### allow tcp 8003 0.0.0.0/0 any 10.0.0.2 in comment=677075686f7374732d6f74686572
"""


def test_ufw_gets_what_it_lacks_and_loses_only_what_is_ours(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "# ENABLED=no\nENABLED=yes\n")
    host.file("etc/ufw/user.rules", RULES)

    access = host.look(["8000", "8002"], ["10.0.0.2/32", "10.0.0.2", "lb1", "fd00::1"])

    assert host.commands(access) == [
        "ufw allow proto tcp from fd00::1 to any port 8000 comment gpuhosts-test",
        "ufw allow proto tcp from fd00::1 to any port 8002 comment gpuhosts-test",
        "ufw delete allow proto tcp from 10.0.0.2 to any port 8001",
    ]
    assert access.says[-1] == "ufw: no longer open: TCP port 8001 for 10.0.0.2"


def test_what_somebody_refuses_in_ufw_stays_refused(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")
    host.file("etc/ufw/user.rules", "### tuple ### reject_log tcp 8000 0.0.0.0/0 any 10.0.0.2 in\n")

    access = host.look(["8000", "8001"])

    assert access.says == ["ufw: TCP port 8001 for 10.0.0.2 is open"]
    (warning,) = access.warnings
    assert "refuses TCP port 8000 for 10.0.0.2, and stays." in warning
    assert warning.endswith(": ufw allow proto tcp from 10.0.0.2 to any port 8000")


@pytest.mark.parametrize(
    ("refusing", "opens"),
    [
        ("deny any 8000 0.0.0.0/0 any 0.0.0.0/0 in", True),
        ("reject_log tcp 22,8000 0.0.0.0/0 any 10.0.0.0/8 in", True),
        ("deny tcp 7990:8010 0.0.0.0/0 any 0.0.0.0/0 in", True),
        ("deny any any 0.0.0.0/0 any 10.0.0.2 in", True),
        ("deny any 8001 0.0.0.0/0 any 0.0.0.0/0 in", False),
        ("deny udp 8000 0.0.0.0/0 any 0.0.0.0/0 in", False),
        ("deny any 8000 ::/0 any ::/0 in", False),
        ("deny tcp 8000 0.0.0.0/0 any 10.0.0.64/26 in", False),
    ],
)
def test_a_wider_rule_of_somebodys_that_comes_first_refuses_as_well(host: Host, refusing: str, opens: bool) -> None:
    """What ufw 0.36.2 writes, and does: a rule after it would open nothing, and a second one is not put before it."""
    rule = "proto tcp from 10.0.0.2 to any port 8000"
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")
    rules = host.file("etc/ufw/user.rules", f"### tuple ### {refusing}\n")

    access = host.look()
    assert (access.says == []) == opens
    assert [one.rpartition(": ")[2] for one in access.warnings] == [f"ufw prepend allow {rule}"] * opens

    later = "### tuple ### allow tcp 8000 0.0.0.0/0 any 10.0.0.2 in comment=677075686f7374732d74657374\n"
    rules.write_text(f"### tuple ### {refusing}\n{later}")
    access = host.look()
    assert access.says == []
    delete = f"ufw delete allow {rule} && ufw prepend allow {rule}"
    assert [one.rpartition(": ")[2] for one in access.warnings] == [delete] * opens

    rules.write_text(f"{later}### tuple ### {refusing}\n")
    assert host.look() == NOTHING


def test_ufw_that_knows_no_ipv6_is_told_of_none(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")
    host.file("etc/default/ufw", "# IPV6=yes\nIPV6=no\n")

    assert host.look(["80"], ["0.0.0.0/0", "::/0"]).says == ["ufw: TCP port 80 for 0.0.0.0/0 is open"]


def test_ufw_that_is_off_is_none(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=no\n")

    assert host.look() == NOTHING


# nftables


def tcp(right: Any, *more: Any) -> list[Any]:
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    return [{"match": {"op": "==", "left": left, "right": right}}, *more, {"accept": None}]


def udp(port: int) -> list[Any]:
    left = {"payload": {"protocol": "udp", "field": "dport"}}
    return [{"match": {"op": "==", "left": left, "right": port}}, {"accept": None}]


def from_(right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": right}}


@pytest.mark.parametrize(
    "rule",
    [
        tcp(8000),
        tcp({"set": [22, {"range": [7000, 8000]}]}),
        tcp("@ports"),
        tcp(8000, from_("10.0.0.2")),
        tcp(8000, from_({"prefix": {"addr": "10.0.0.0", "len": 8}})),
        tcp(8000, from_({"set": ["10.0.0.1", {"range": ["10.0.0.2", "10.0.0.3"]}]})),
        tcp(8000, {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}),
        [from_({"prefix": {"addr": "10.0.0.0", "len": 8}}), {"counter": {"packets": 1, "bytes": 60}}, {"accept": None}],
    ],
)
def test_a_ruleset_that_lets_the_port_in_needs_nothing(host: Host, rule: Any) -> None:
    host.nft({}, [rule])

    assert host.look() == NOTHING


@pytest.mark.parametrize(
    "rule",
    [
        tcp(22),
        tcp(8000, from_("10.0.0.9")),
        [*tcp(8000)[:-1], {"drop": None}],
        [from_("10.0.0.9"), {"accept": None}],
        [from_("10.0.0.2"), *udp(53)],
        [from_("10.0.0.2"), {"xt": {"type": "match", "name": "multiport"}}, {"accept": None}],
        [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}, {"accept": None}],
    ],
)
def test_a_ruleset_that_does_not_is_told_of_and_left_alone(host: Host, rule: Any) -> None:
    host.nft({}, [rule])

    access = host.look()

    assert (access.firewall, access.says) == ((), [])
    assert "nft insert rule inet fw input ip saddr 10.0.0.2 tcp dport 8000 accept." in access.warnings[0]
    assert "fleet_firewall" in access.warnings[0]


def test_what_a_ruleset_lets_out_lets_nobody_in(host: Host) -> None:
    host.nft({}, [])
    chain = {"name": "output", "type": "filter", "hook": "output", "policy": "drop"}
    rule = {"chain": "output", "expr": tcp(8000)}
    host.answers["list table inet fw"] = json.dumps({"nftables": [{"chain": chain}, {"rule": rule}]})

    assert len(host.look().warnings) == 1


@pytest.mark.parametrize(
    ("last", "is_closed"),
    [
        ([{"counter": {}}, {"xt": {"type": "target", "name": "REJECT"}}], True),
        ([{"reject": None}], True),
        ([from_("10.0.0.9"), {"drop": None}], False),
        ([{"xt": {"type": "match", "name": "limit"}}, {"drop": None}], False),
        ([{"counter": {}}], False),
    ],
)
def test_the_last_rule_closes_a_chain_that_accepts(host: Host, last: list[Any], is_closed: bool) -> None:
    host.nft({"family": "ip", "table": "filter", "name": "INPUT", "policy": "accept"}, [tcp(22), last])

    warnings = host.look(sources=["10.0.0.2", "fd00::1"]).warnings

    assert bool(warnings) == is_closed
    assert not warnings or "iptables -I INPUT -p tcp -s 10.0.0.2 --dport 8000 -j ACCEPT. Put" in warnings[0]


def test_a_chain_that_is_no_firewall_of_the_host_is_passed_over(host: Host) -> None:
    host.nft({"hook": "forward"}, [])
    assert host.look() == NOTHING
    host.nft({"family": "bridge"}, [])
    assert host.look() == NOTHING


# What is asked for


def test_a_firewall_is_left_alone_on_demand(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")

    assert host.look(firewall="none") == NOTHING


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"sources": ["lb2"]}, "'lb2', which is no address, no network and no name.*set its fleet_address"),
        ({"name": "gpuhosts-exporters"}, "no more than 17 characters"),
    ],
)
def test_what_cannot_be_is_refused(host: Host, what: dict[str, Any], message: str) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")

    with pytest.raises(AccessError, match=message):
        host.look(**what)


def test_an_address_without_a_port_is_one_of_port_80(host: Host) -> None:
    host.file("etc/ufw/ufw.conf", "ENABLED=yes\n")

    assert host.look(["[::]", "10.0.0.1", "[fd00::1]:443", ":9090"]).says == [
        f"ufw: TCP port {port} for 10.0.0.2 is open" for port in (80, 443, 9090)
    ]


def test_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses_of("10.0") == []
    assert "127.0.0.1" in addresses_of("localhost")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror))
    assert addresses_of("lb2") == []


# SELinux

LISTED = """SELinux Port Type              Proto    Port Number

http_port_t                    tcp      80, 443
soundd_port_t                  tcp      8000, 9433
unreserved_port_t              tcp      1024-32767, 32768-61000
websm_port_t                   udp      9091
"""
STORE = "var/lib/selinux/targeted/active"
NEEDS: dict[str, Any] = {
    "booleans": ["httpd_can_network_connect"],
    "port_type": "http_port_t",
    "known_ports": [80],
    "file_contexts": {"/srv/vllm/versions/[^/]+/bin(/.*)?": "bin_t"},
}


@pytest.fixture
def confined(host: Host) -> Host:
    """A host with SELinux."""
    host.file("sys/fs/selinux/enforce", "1")
    host.file("sys/fs/selinux/booleans/httpd_can_network_connect", "0 0")
    host.file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    host.file("usr/sbin/semanage")
    host.answers["semanage port --list"] = LISTED
    return host


def test_the_policy_gets_all_that_it_lacks_at_once(confined: Host) -> None:
    access = confined.look(["80", "127.0.0.1:8000", "9091", "9092"], **NEEDS)

    assert confined.commands(access) == ["semanage import", "restorecon -R -F /srv/vllm/versions"]
    assert access.selinux[0].reads.splitlines() == [
        "boolean -m -1 httpd_can_network_connect",
        "port -m -t http_port_t -p tcp 8000",
        "port -a -t http_port_t -p tcp 9091",
        "port -a -t http_port_t -p tcp 9092",
        "fcontext -a -t bin_t '/srv/vllm/versions/[^/]+/bin(/.*)?'",
    ]
    assert access.says[0] == "SELinux: boolean httpd_can_network_connect is on"
    assert len(access.says) == 5


def test_no_more_is_labelled_anew_than_what_has_another_label(confined: Host) -> None:
    """What others have in /srv may have labels that they gave it."""
    access = confined.look(file_contexts={"/srv/vllm-0.33/(versions|pythons)/[^/]+/bin(/.*)?": "bin_t"})

    assert confined.commands(access)[1] == "restorecon -R -F /srv/vllm-0.33"


def test_what_the_policy_has_is_left_alone(confined: Host) -> None:
    confined.file("sys/fs/selinux/booleans/httpd_can_network_connect", "1 1")
    confined.file(f"{STORE}/booleans.local", "# generated\n\nhttpd_can_network_connect=1\n")
    confined.file(f"{STORE}/ports.local", "portcon tcp 8000 system_u:object_r:http_port_t:s0\n")
    contexts = "/srv/vllm/versions/[^/]+/bin(/.*)?    system_u:object_r:bin_t:s0\n"
    confined.file(f"{STORE}/file_contexts.local", contexts)

    assert confined.look(["80", "8000"], **NEEDS) == NOTHING
    assert confined.asked == []

    confined.file(f"{STORE}/booleans.local", "")  # on until the next boot
    assert confined.look(**NEEDS).says == ["SELinux: boolean httpd_can_network_connect is on"]
    confined.file(f"{STORE}/file_contexts.local", contexts.replace("bin_t", "usr_t"))
    assert "fcontext -m -t bin_t" in confined.look(**NEEDS).selinux[0].reads


def test_a_policy_that_does_not_know_the_boolean_does_not_confine_the_service(confined: Host) -> None:
    assert confined.look(booleans=["no_such_boolean"]) == NOTHING


def test_without_semanage_its_package_is_missing(confined: Host) -> None:
    (confined.root / "usr/sbin/semanage").unlink()

    assert confined.look(booleans=NEEDS["booleans"]).packages == ("policycoreutils-python-utils",)
    assert confined.look().packages == ()


# Steps


def test_a_step_that_fails_says_why() -> None:
    take([Step(command=("grep", "-q", "told"), reads="what it is told\n")])
    with pytest.raises(AccessError, match=r"`ls /no/such/file` fails: .*No such file"):
        take([Step(command=("ls", "/no/such/file"))])
    with pytest.raises(AccessError, match="it is not there"):
        take([Step(command=("no such command",))])
