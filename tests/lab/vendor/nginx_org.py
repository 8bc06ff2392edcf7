"""nginx.org's repository for apt: NGINX and njs under their real names, with Debian's programs in them.

Names, relations and places are those of https://nginx.org/en/linux_packages.html and https://github.com/nginx/pkg-oss.
Debian's NGINX has its temporary files below /var/lib/nginx, so that is a link to where nginx.org's has them. The newer
version has the same programs: who moves to it unasked will notice by its name.
"""

from __future__ import annotations

from pathlib import Path

import docker

from tests.lab.phases import Say

from . import units
from .apt import Repository
from .deb import Package, Stored
from .debian import unpacked
from .signing import Key

BASE = "nginx.org"  # below the mirror
VERSION, NEWER = "1.30.7", "1.30.8"
NJS = "1.0.2"
SUITES = {"jammy": "bookworm", "resolute": "trixie"}  # and the Debian that is dressed as it (molecule/ubuntu)

_FILES = Path(__file__).with_name("files") / "nginx"
_MODULES = "/usr/lib/nginx/modules"
_BEFORE = """
id nginx >/dev/null 2>&1 || useradd --system --home-dir /nonexistent --shell /bin/false nginx
install -d /var/cache/nginx /var/log/nginx
"""


def repositories(client: docker.DockerClient, key: Key, say: Say) -> list[Repository]:
    """One suite for each release; the file of keys has one more, as nginx.org's may."""
    keys = (_FILES / "retired.asc").read_bytes() + key.armored
    return [
        Repository(
            path=BASE,
            directory="packages/ubuntu",
            origin="nginx",
            suite=suite,
            component="nginx",
            packages=tuple(
                package
                for version in (VERSION, NEWER)
                for package in _packages(
                    unpacked(client, release, ("nginx", "libnginx-mod-http-js"), say), version, suite
                )
            ),
            extra={"keys/nginx_signing.key": keys, "keys/fingerprint": key.fingerprint.encode()},
        )
        for suite, release in SUITES.items()
    ]


def _packages(tree: Path, version: str, suite: str) -> list[Package]:
    nginx = Package(
        "nginx",
        f"{version}-1~{suite}",
        "NGINX, a stand-in",
        depends=("libc6", "libcrypt1", "libpcre2-8-0", "libssl3t64 | libssl3", "passwd", "zlib1g"),
        provides=("httpd", f"nginx-r{version}"),
        conflicts=("nginx-common", "nginx-core"),
        replaces=("nginx-common", "nginx-core"),
        files={
            "/etc/nginx/nginx.conf": (_FILES / "nginx.conf").read_bytes(),
            "/etc/nginx/conf.d/default.conf": (_FILES / "default.conf").read_bytes(),
            "/usr/lib/systemd/system/nginx.service": (_FILES / "nginx.service").read_bytes(),
        },
        programs=Stored({"/usr/sbin/nginx": tree / "usr/sbin/nginx"}),
        links={"/etc/nginx/modules": _MODULES, "/var/lib/nginx": "/var/cache/nginx"},
        scripts=units.scripts("nginx.service", before=_BEFORE),
    )
    name = f"{_MODULES}/ngx_http_js_module.so"
    njs = Package(
        "nginx-module-njs",
        f"{version}+{NJS}-1~{suite}",
        "njs, a stand-in",
        depends=("libc6", "libxml2 | libxml2-16", f"nginx (= {nginx.version})"),
        files=Stored({name: tree / name[1:]}),
    )
    return [nginx, njs]
