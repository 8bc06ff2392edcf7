"""Prometheus and the exporters from the packages of Ubuntu."""

from __future__ import annotations

from typing import Any

NAMED = {
    "ubuntu2204": {"prometheus", "prometheus-nginx-exporter", "prometheus-node-exporter"},
    "ubuntu2604": {"prometheus", "prometheus-nginx-exporter", "prometheus-node-exporter", "promtool"},
}


def test_the_packages_are_those_that_the_release_has(host: Any) -> None:
    asked_for = host.check_output("apt-mark showmanual").splitlines()

    named = {name for name in asked_for if name.startswith("prom")}
    assert named == NAMED[host.check_output("hostname")]
    assert set(host.file("/opt/gpuhosts").listdir()) == {"front_door", "metrics"}  # no program of an archive
