"""NGINX on a dressed host: it runs as its packages there mean it, serves, changes and refuses."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

VERSION, NEWER = "1.30.7", "1.30.8"  # in nginx.org's stand-in
PORT = 9001  # of a server behind it
MODELS = [{"name": "small", "servers": [{"id": "small-1", "address": "127.0.0.1", "port": PORT}]}]
STATE = "/var/lib/gpuhosts-front-door/state.json"
USERS = {"ubuntu2604": "www-data"}  # where the packages are the distribution's


@pytest.fixture
def change(change: Callable[..., str]) -> Callable[..., str]:
    """Nothing but this role of the pool."""
    return functools.partial(change, "--tags=nginx_lb")


@pytest.fixture(scope="module", autouse=True)
def server(hosts: list[Any]) -> None:
    """Behind NGINX: it is healthy, and answers every POST with 501, in its own words."""
    for host in hosts:
        if not host.service("server").is_running:
            host.check_output("mkdir -p /srv/engine && touch /srv/engine/health")
            serve = f"python3 -m http.server --bind 127.0.0.1 --directory /srv/engine {PORT}"
            host.check_output(f"systemd-run --unit=server {serve}")
    for host in hosts:  # until the front door has seen it, and NGINX has taken that up
        host.check_output(f"timeout 20 sh -c 'while grep -q 127.0.0.1:{PORT} {STATE}; do sleep 0.2; done' && sleep 1")


def post(host: Any, model: str, size: int = 0) -> str:
    """Body of the answer to a request for a model, with a prompt of some size."""
    body = f"""printf '{{"model": "{model}", "prompt": "'; head --bytes={size} /dev/zero | tr '\\0' x; printf '"}}'"""
    curl = "curl --silent --data-binary @- http://127.0.0.1/v1/completions"
    return str(host.check_output(f"({body}) | {curl}"))


def versions(host: Any) -> dict[str, str]:
    """NGINX and njs of nginx.org, where they are installed, by name."""
    query = "dpkg-query --show --showformat '${Package} ${Version}\\n' 'nginx*'"
    if host.exists("rpm"):
        query = "rpm --query --queryformat '%{NAME} %{VERSION}\\n' nginx nginx-module-njs"
    lines = [line.split(" ") for line in host.run(query).stdout.splitlines()]
    return {name: version for name, version in lines if name in ("nginx", "nginx-module-njs")}


def releases(host: Any) -> set[str]:
    """Those of NGINX that the two are of."""
    return {version.partition("-")[0].partition("+")[0] for version in versions(host).values()}


def key_of(host: Any) -> Any:
    """The file with nginx.org's key."""
    return host.file("/etc/pki/rpm-gpg/RPM-GPG-KEY-nginx" if host.exists("dnf") else "/etc/apt/keyrings/nginx.asc")


def of_nginx_org(hosts: list[Any]) -> list[Any]:
    """Hosts that do not have the distribution's packages."""
    found = [host for host in hosts if "nginx-module-njs" in versions(host)]
    assert found
    return found


def test_runs_now_and_at_every_boot_as_the_user_of_its_packages(host: Any) -> None:
    service = host.service("nginx")
    assert service.is_running
    assert service.is_enabled

    master, *workers = host.check_output("ps -C nginx -o user= --sort pid").split()
    assert master == "root"
    assert set(workers) == {USERS.get(host.check_output("hostname"), "nginx")}


def test_its_sandbox_is_tight(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "nginx") <= 3.0


def test_a_worker_may_have_as_many_connections_as_are_configured(host: Any) -> None:
    worker = host.check_output("pgrep --newest --parent $(cat /run/nginx.pid)")
    limit = host.check_output(f"grep 'Max open files' /proc/{worker}/limits").split()[3]
    assert int(limit) >= 2 * 8192


def test_the_script_sends_requests_to_the_models_that_they_name(host: Any) -> None:
    assert host.check_output("curl --silent http://127.0.0.1/health") == "ok"
    assert "Unsupported method ('POST')" in post(host, "small")
    assert json.loads(post(host, "away"))["error"]["code"] == "no_server"
    assert json.loads(post(host, "huge"))["error"]["code"] == "model_not_found"


def test_the_site_of_the_packages_is_gone(host: Any) -> None:
    assert not host.file("/etc/nginx/conf.d/default.conf").exists
    assert not host.file("/etc/nginx/sites-enabled/default").exists


def test_nginx_and_its_module_are_of_one_version_and_an_upgrade_of_the_host_leaves_them_there(hosts: list[Any]) -> None:
    for host in of_nginx_org(hosts):
        assert releases(host) == {VERSION}
        upgrade = "dnf --assumeno upgrade" if host.exists("dnf") else "apt-get --simulate dist-upgrade"
        assert NEWER not in host.run(upgrade).stdout


def test_of_the_keys_that_nginx_org_publishes_one_is_trusted(hosts: list[Any]) -> None:
    for host in of_nginx_org(hosts):
        assert key_of(host).content_string.count("BEGIN PGP PUBLIC KEY BLOCK") == 1


def test_a_refused_configuration_leaves_the_old_one_serving(hosts: list[Any], change: Callable[..., str]) -> None:
    assert 'host not found in "nonsense" of the "listen" directive' in change(nginx_lb_listen=["nonsense"])

    for host in hosts:
        assert json.loads(post(host, "away"))["error"]["code"] == "no_server"


def test_a_new_configuration_needs_no_restart_and_large_requests_have_their_place(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [host.check_output("cat /run/nginx.pid") for host in hosts]

    assert not change(nginx_lb_models=MODELS)

    assert [host.check_output("cat /run/nginx.pid") for host in hosts] == before
    for host in hosts:
        assert "Unsupported method ('POST')" in post(host, "any", size=1_000_000)
        assert "[crit]" not in host.file("/var/log/nginx/error.log").content_string


def test_both_packages_follow_to_another_version_with_the_key_of_today_and_the_new_program_runs(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    moving = of_nginx_org(hosts)
    keys = {host: key_of(host).content_string for host in moving}
    for host in moving:
        host.check_output(f"echo >> {key_of(host).path}")  # the same key, in other words than the vendor's of today
    before = {host: host.check_output("cat /run/nginx.pid") for host in hosts}

    assert not change(nginx_lb_version=NEWER)

    for host in hosts:
        assert (host.check_output("cat /run/nginx.pid") != before[host]) is (host in moving)
        assert json.loads(post(host, "away"))["error"]["code"] == "no_server"
    assert {release for host in moving for release in releases(host)} == {NEWER}
    assert {host: key_of(host).content_string for host in moving} == keys
