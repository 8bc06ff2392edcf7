"""Debian's own packages, unpacked, for stand-ins that have its programs in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import docker

from tests.lab import toolchain
from tests.lab.phases import Say
from tests.lab.settings import CACHE

_UNPACK = """
apt-get download --quiet {packages}
for package in *.deb; do dpkg-deb --extract $package /output; done
"""


def unpacked(client: docker.DockerClient, release: str, packages: tuple[str, ...], say: Say) -> Path:
    """The files of packages of a release, below a directory of this machine."""
    place = CACHE / "debian" / f"{release}-{'-'.join(packages)}"
    if not place.is_dir():
        say(f"{', '.join(packages)} of {release}")
        unfinished = place.with_name(place.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        script = _UNPACK.format(packages=" ".join(packages))
        toolchain.run(client, "", script, {}, output=unfinished, release=release)
        unfinished.rename(place)
    return place
