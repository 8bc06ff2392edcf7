"""Where NGINX listens, what the firewall and the sandbox let keepalived do, and the end of the address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = "172.29.250.116"
SYSCTL = "/etc/sysctl.d/60-gpuhosts-front-address.conf"


def holders(hosts: list[Any]) -> list[Any]:
    return [host for host in hosts if f" {ADDRESS}/32 " in host.check_output("ip -4 address")]


def test_only_the_other_balancer_is_let_in(host: Any) -> None:
    if host.exists("ufw"):
        rules = [line.split() for line in host.check_output("ufw status").splitlines() if "vrrp" in line]
        assert rules == [["Anywhere", "ALLOW", "172.29.250.115/vrrp", "#", "gpuhosts-vrrp"]]


def test_it_may_do_little(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "keepalived") <= 3.0
    assert host.check_output("systemctl show --property=NRestarts --value nginx") == "0"


def test_nginx_can_listen_on_the_address_alone_on_both_hosts(hosts: list[Any], change: Callable[..., str]) -> None:
    assert not change(nginx_lb_listen=["127.0.0.1:81", f"{ADDRESS}:81"])

    for host in hosts:
        assert f"{ADDRESS}:81" in host.check_output("ss --listening --tcp --numeric")
        assert host.file(SYSCTL).mode == 0o644
    assert len(holders(hosts)) == 1


def test_without_an_address_nothing_is_left(hosts: list[Any], change: Callable[..., str]) -> None:
    assert not change(front_address_cidr="", nginx_lb_listen=["80"])

    assert holders(hosts) == []
    for host in hosts:
        assert not host.package("keepalived").is_installed
        assert not host.user("keepalived_script").exists
        assert host.check_output("find /etc -name '*keepalived*' -o -name '*gpuhosts*address*'") == ""
        assert host.check_output("curl --silent http://127.0.0.1/health") == "ok"
