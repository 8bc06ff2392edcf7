"""Docker's repository: the packages of the engine under their real names, with Debian's programs in them.

Names and relations are those of https://docs.docker.com/engine/install/debian/ and of the packages themselves. The
versions are too, but the programs are those of Debian 13, which run on Debian 12 as well: asked for its version, the
engine says Debian's. They lie in a package of their own, so that the others are small. The newer versions here have
nothing in them: an engine that they replace is gone, and whoever pulls them in will notice. Unlike Docker's, this
containerd.io leaves runc to the distribution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker

from tests.lab import toolchain
from tests.lab.phases import Say
from tests.lab.settings import CACHE

from . import units
from .apt import Repository
from .deb import Package, Stored
from .signing import Key

BASE = "docker"  # below the mirror; Docker's is download.docker.com
OLDER, VERSION, CONTAINERD_VERSION = "29.7.1-1", "29.7.2-1", "2.3.4-1"
NEWER, NEWER_CONTAINERD = "29.9.0-1", "2.4.0-1"
# By distribution, and what ends the versions in a suite.
SUITES = {
    "debian": {"bookworm": "~debian.12~bookworm", "trixie": "~debian.13~trixie"},
    "ubuntu": {"resolute": "~ubuntu.26.04~resolute"},
}

_MAINTAINER = "Docker <support@docker.com>"
_PROGRAMS = "/usr/lib/docker-stand-in"  # where the package with the programs has them
_DOWNLOADED = CACHE / "docker-programs"
_NAMES = ("dockerd", "docker-proxy", "docker", "containerd", "containerd-shim-runc-v2")
_FILES = Path(__file__).with_name("files") / "docker"

_DOWNLOAD = """
apt-get download --quiet docker.io docker-cli containerd
for package in *.deb; do dpkg-deb --extract $package tree; done
find tree/usr \\( {names} \\) -type f -perm -1 -exec cp {{}} /output \\;
"""


def repositories(client: docker.DockerClient, key: Key, say: Say) -> list[Repository]:
    """One suite for each release, as at Docker."""
    if not all((_DOWNLOADED / name).is_file() for name in _NAMES):
        say("Debian's Docker for the packages of docker-ce")
        names = " -o ".join(f"-name {name}" for name in _NAMES)
        toolchain.run(client, "", _DOWNLOAD.format(names=names), {}, output=_DOWNLOADED, release="trixie")
    return [
        Repository(
            path=f"{BASE}/linux/{distribution}",
            origin="Docker",
            label="Docker CE",
            suite=suite,
            component="stable",
            packages=(
                _programs(),
                *_engine(f"{OLDER}{ending}"),
                *_engine(f"{VERSION}{ending}"),
                _containerd(f"{CONTAINERD_VERSION}{ending}"),
                *_empty(f"{NEWER}{ending}", f"{NEWER_CONTAINERD}{ending}"),
            ),
            extra={"gpg": key.armored},
        )
        for distribution, suites in SUITES.items()
        for suite, ending in suites.items()
    ]


def _engine(version: str) -> list[Package]:
    """The engine and its client, which run."""
    engine = _package(
        "docker-ce",
        f"5:{version}",
        depends=("containerd.io (>= 1.7.27)", "docker-ce-cli", "docker-stand-in", "iptables", "libsystemd0"),
        recommends=("ca-certificates", "git", "procps", "xz-utils"),
        conflicts=("docker.io",),
        links=_links("dockerd", "docker-proxy"),
        **_units("docker.socket", "docker.service", before="getent group docker >/dev/null || groupadd -r docker"),
    )
    client = _package(
        "docker-ce-cli",
        f"5:{version}",
        depends=("docker-stand-in",),
        conflicts=("docker.io",),
        links=_links("docker"),
    )
    return [engine, client]


def _containerd(version: str) -> Package:
    return _package(
        "containerd.io",
        version,
        depends=("docker-stand-in", "runc"),
        provides=("containerd",),
        conflicts=("containerd",),
        replaces=("containerd",),
        links=_links("containerd", "containerd-shim-runc-v2"),
        **_units("containerd.service"),
    )


def _empty(version: str, containerd_version: str) -> list[Package]:
    packages = {"docker-ce": f"5:{version}", "docker-ce-cli": f"5:{version}", "containerd.io": containerd_version}
    return [_package(name, version) for name, version in packages.items()]


def _programs() -> Package:
    return Package(
        "docker-stand-in",
        "1.0",
        "Debian's programs for the packages of docker-ce",
        depends=("libc6 (>= 2.34)", "libsystemd0"),
        programs=Stored({f"{_PROGRAMS}/{name}": _DOWNLOADED / name for name in _NAMES}),
    )


def _package(name: str, version: str, **more: Any) -> Package:
    return Package(name, version, f"{name}, a stand-in", maintainer=_MAINTAINER, **more)


def _links(*names: str) -> dict[str, str]:
    return {f"/usr/bin/{name}": f"{_PROGRAMS}/{name}" for name in names}


def _units(*names: str, before: str = "") -> dict[str, Any]:
    return {
        "files": {f"/usr/lib/systemd/system/{name}": (_FILES / name).read_bytes() for name in names},
        "scripts": units.scripts(*names, before=before),
    }
