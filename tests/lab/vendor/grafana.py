"""Grafana's repository for apt, with a stand-in: no package of Grafana is in any archive that is reached here.

Names and places are those of https://grafana.com/docs/grafana/latest/setup-grafana/installation/debian/ and of the
packaging in https://github.com/grafana/grafana. The program reads the configuration and what is provisioned, and
answers /api/health and what a test asks of the rest; files/grafana/grafana.py says how far that goes.
"""

from __future__ import annotations

from pathlib import Path

from . import units
from .apt import Repository
from .deb import Package
from .signing import Key

BASE = "grafana"  # below the mirror
VERSION, NEWER = "13.2.3", "13.2.4"
FILES = Path(__file__).with_name("files") / "grafana"
_BEFORE = """
id grafana >/dev/null 2>&1 || useradd --system --home-dir /usr/share/grafana --shell /bin/false grafana
install --directory --owner=grafana --group=grafana /var/lib/grafana /var/log/grafana
chown --recursive root:grafana /etc/grafana
find /etc/grafana -type f -exec chmod 640 {} +
"""


def repositories(key: Key) -> list[Repository]:
    """One suite, whatever the release of the distribution."""
    return [
        Repository(
            path=BASE,
            origin="grafana stable",
            suite="stable",
            component="main",
            packages=tuple(_package(version) for version in (VERSION, NEWER)),
            extra={"gpg.key": key.armored, "fingerprint": key.fingerprint.encode()},
        )
    ]


def _package(version: str) -> Package:
    program = (FILES / "grafana.py").read_text().replace("@VERSION@", version).encode()
    return Package(
        "grafana",
        version,
        "Grafana, a stand-in",
        depends=("adduser", "python3", "python3-yaml"),
        files={
            "/etc/default/grafana-server": (FILES / "environment").read_bytes(),
            "/etc/grafana/grafana.ini": b"; every value here is as in defaults.ini\n",
            "/etc/grafana/provisioning/datasources/sample.yaml": b"apiVersion: 1\n",
            "/etc/grafana/provisioning/dashboards/sample.yaml": b"apiVersion: 1\n",
            "/usr/lib/systemd/system/grafana-server.service": (FILES / "grafana-server.service").read_bytes(),
        },
        programs={"/usr/share/grafana/bin/grafana": program},
        links={"/usr/sbin/grafana": "/usr/share/grafana/bin/grafana"},
        scripts=units.scripts("grafana-server.service", before=_BEFORE),
    )
