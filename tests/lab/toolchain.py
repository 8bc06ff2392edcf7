"""Compilers for what the lab compiles: in a throw-away container of the oldest Debian, whose glibc suits all hosts."""

from __future__ import annotations

from pathlib import Path

import docker
from docker.errors import ContainerError

from . import images
from .settings import LABEL, LabError

_PROLOGUE = """
set -e
export LC_ALL=C
exec 3>&1 >&2 # the result goes to descriptor 3; what is said on the way is an error message
apt-get update --quiet
apt-get install --yes --quiet --no-install-recommends {packages}
cd /tmp
"""


def run(
    client: docker.DockerClient,
    packages: str,
    script: str,
    mounts: dict[str, str],
    *,
    output: Path | None = None,
    release: str = "bookworm",
) -> str:
    """Run a script with some packages installed; returns what it writes to its descriptor 3.

    Mounts are directories of this machine and where the script reads them. Binary results must be encoded as text, or
    go to /output, which is then the directory ``output``.
    """
    volumes = {source: {"bind": target, "mode": "ro"} for source, target in mounts.items()}
    if output:
        output.mkdir(parents=True, exist_ok=True)
        volumes[str(output)] = {"bind": "/output", "mode": "rw"}
        script += "\nchown --reference=/output /output/*\n"
    try:
        result: bytes = client.containers.run(
            images.tag(release),
            ["sh", "-c", _PROLOGUE.format(packages=packages) + script],
            volumes=volumes,
            labels={LABEL: "toolchain"},
            remove=True,
        )
    except ContainerError as error:
        raise LabError(f"compiling failed:\n{error.stderr.decode()[-2000:]}") from error
    return result.decode()
