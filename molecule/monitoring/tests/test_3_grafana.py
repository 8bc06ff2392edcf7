"""Grafana as the role runs it: the lab's stand-in, which starts from the real one's configuration and provisioning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = "/etc/grafana/provisioning/datasources/gpuhosts.yaml"
CERTIFICATE = (
    "mkdir -p /srv/tls && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    " -subj /CN=grafana.example -keyout /srv/tls/key.pem -out /srv/tls/certificate.pem"
)


TLS = {"grafana_certificate": "/srv/tls/certificate.pem", "grafana_certificate_key": "/srv/tls/key.pem"}
LOGIN = {"grafana_prometheus_user": "grafana", "grafana_prometheus_password": "pa$$word"}
FIRST, SECOND = {"grafana_admin_password": "swordfish"}, {"grafana_admin_password": "carpenter"}


def api(host: Any, path: str, login: dict[str, str] = FIRST, base: str = "http://127.0.0.1:3000") -> Any:
    command = "curl --silent --fail" + (" --cacert /srv/tls/certificate.pem" if base.startswith("https") else "")
    return json.loads(host.check_output(f"{command} --user admin:%s {base}/api/%s", *login.values(), path))


def process(host: Any) -> str:
    return host.check_output("systemctl show --property=MainPID --value grafana-server")


def test_runs_now_and_at_every_boot_on_the_given_address_only(host: Any) -> None:
    sockets = host.socket.get_listening_sockets()

    assert host.service("grafana-server").is_running
    assert host.service("grafana-server").is_enabled
    assert [socket for socket in sockets if socket.endswith(":3000")] == ["tcp://127.0.0.1:3000"]


def test_nobody_gets_in_without_the_password(host: Any) -> None:
    answered = "curl --silent --output /dev/null --write-out '%%{http_code}' %s http://127.0.0.1:3000/api/datasources"

    assert host.check_output(answered, "--anyauth") == "401"
    assert host.check_output(answered.replace("%s", "--user admin:%s"), "admin") == "401"
    assert api(host, "health")["version"] == "13.2.3"


def test_the_sources_have_the_names_that_the_dashboards_ask_for(host: Any) -> None:
    sources = {one["uid"]: (one["type"], one["url"], one["editable"]) for one in api(host, "datasources")}

    assert sources == {
        "gpuhosts-prometheus": ("prometheus", "http://127.0.0.1:9090", False),
        "gpuhosts-jaeger": ("jaeger", "http://127.0.0.1:16686", False),
    }
    uids = api(host, "search")
    assert "gpuhosts-fleet" in uids
    for uid in uids:
        dashboard = api(host, f"dashboards/uid/{uid}")["dashboard"]
        used = {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"}
        assert used <= set(sources)


def test_secrets_are_roots_alone(host: Any) -> None:
    secret = host.file("/etc/gpuhosts/grafana/admin-password")

    assert (secret.mode, secret.user, secret.content_string) == (0o600, "root", "swordfish")
    assert not host.run_expect([0, 1], "grep --recursive --files-with-matches swordfish /etc/grafana").stdout


def test_its_sandbox_is_tight(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "grafana-server") <= 3.0


def test_the_version_is_held(host: Any) -> None:
    assert "grafana" in host.check_output("apt-mark showhold").split()


def test_pages_about_alerts_lead_where_they_shall_and_need_no_restart(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [process(host) for host in hosts]

    assert not change(grafana_runbook_base="https://wiki.example/alerts/")

    assert [process(host) for host in hosts] == before
    for host in hosts:
        dashboard = json.dumps(api(host, "dashboards/uid/gpuhosts-fleet"))
        assert "https://wiki.example/alerts/${__value.text}.md" in dashboard
        assert "github.com" not in dashboard


def test_another_password_counts_at_once(hosts: list[Any], change: Callable[..., str]) -> None:
    assert not change(**SECOND)

    assert all(api(host, "search", SECOND) for host in hosts)


def test_a_configuration_that_it_does_not_start_with_does_not_replace_the_old_one(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [host.file(SOURCES).sha256sum for host in hosts]

    said = change(**SECOND, grafana_prometheus_ca="/srv/no-such-file.pem")

    assert "grafana-server does not answer with the new" in said
    assert "runs with the old ones, which are back" in said
    assert [host.file(SOURCES).sha256sum for host in hosts] == before
    assert all(api(host, "search", SECOND) for host in hosts)


def test_it_speaks_tls_and_logs_in_at_prometheus(hosts: list[Any], change: Callable[..., str]) -> None:
    for host in hosts:
        host.check_output(CERTIFICATE)

    said = change(**SECOND, **TLS, **LOGIN)

    assert not said
    for host in hosts:
        host.check_output("grep -q grafana.example /etc/hosts || echo 127.0.0.1 grafana.example >>/etc/hosts")
        sources = api(host, "datasources", SECOND, "https://grafana.example:3000")
        (prometheus,) = (one for one in sources if one["uid"] == "gpuhosts-prometheus")
        assert prometheus["basicAuthUser"] == "grafana"
        assert prometheus["secureJsonFields"] == {"basicAuthPassword": True}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"grafana_admin_password": "short"}, "grafana_admin_password has fewer than 8 characters"),
        ({"grafana_certificate": "/srv/tls/certificate.pem"}, "one of grafana_certificate and grafana_certificate_key"),
        ({"grafana_version": "latest"}, "grafana_version is 'latest'; it must be a version, as in 13.2.3"),
    ],
)
def test_variables_are_checked_before_anything_is_changed(
    change: Callable[..., str], variables: dict[str, Any], message: str
) -> None:
    assert message in change(**variables)
