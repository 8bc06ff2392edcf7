"""Prometheus and the exporters from archives of upstream releases."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

RELEASES = "/srv/repository/releases/prometheus"
# By program.
SERVICES = {
    "prometheus": "prometheus",
    "node_exporter": "prometheus-node-exporter",
    "nginx-prometheus-exporter": "prometheus-nginx-exporter",
}
DEBIANS = {"prometheus": "2.53.3", "node_exporter": "1.9.0", "nginx-prometheus-exporter": "1.4.1"}
DEFAULTS = {"prometheus": "3.13.2", "node_exporter": "1.12.1"}  # the same programs under other names
VARIABLES = {"prometheus": "prometheus", "node_exporter": "exporters_node"}


@pytest.fixture
def change(change: Callable[..., str]) -> Callable[..., str]:
    """Nothing but these roles of the pool."""
    return functools.partial(change, "--tags=exporters,prometheus")


def programs(host: Any) -> dict[str, str]:
    """What the services really run."""
    pids = {name: host.check_output("systemctl show --value -p MainPID %s", unit) for name, unit in SERVICES.items()}
    return {name: host.file(f"/proc/{pid}/cmdline").content_string.split("\0")[0] for name, pid in pids.items()}


def expected(versions: dict[str, str]) -> dict[str, str]:
    return {name: f"/opt/gpuhosts/{name}/{version}/bin/{name}" for name, version in versions.items()}


def everything(host: Any) -> str:
    """What the roles have written, and when."""
    return host.check_output(
        "find /opt/gpuhosts /etc/systemd/system /etc/default /etc/prometheus -type f -printf '%p %T@\\n' | sort"
    )


def test_all_run_from_their_archives(host: Any) -> None:
    assert programs(host) == expected(DEBIANS)


def test_an_archive_with_another_checksum_is_refused_before_anything_changes_and_the_remedy_works(
    hosts: list[Any], change: Callable[..., str]
) -> None:
    before = [(programs(host), everything(host)) for host in hosts]

    output = " ".join(change(exporters_node_version=DEFAULTS["node_exporter"]).split())

    assert output.count("node_exporter-1.12.1.linux-amd64.tar.gz is not what it shall be: its SHA-256 is ") >= len(
        hosts
    )
    assert "Nothing was installed." in output
    assert "the checksum of another archive that you trust, exporters_node_checksum." in output
    assert [(programs(host), everything(host)) for host in hosts] == before

    trusted = {
        f"{VARIABLES[name]}_checksum": hosts[0].check_output(
            f"cut --delimiter=' ' --fields=1 {RELEASES}/{name}/releases/download/v{version}/sha256sums.txt"
        )
        for name, version in DEFAULTS.items()
    }
    assert not change(**trusted, **{f"{VARIABLES[name]}_version": version for name, version in DEFAULTS.items()})

    for host in hosts:
        assert programs(host) == expected(DEBIANS | DEFAULTS)
        there = host.check_output("find /opt/gpuhosts -mindepth 2 -maxdepth 2 -type d -printf '%P\\n' | sort")
        kept = ["nginx-prometheus-exporter/1.4.1", "node_exporter/1.12.1", "prometheus/3.13.2"]
        assert there.splitlines() == kept, "the versions before are gone"
        assert host.check_output("curl --silent --fail http://127.0.0.1:9090/-/ready").endswith("Ready.")
