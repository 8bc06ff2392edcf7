"""The hosts of a Molecule scenario: ``python -m tests.lab.scenario create|destroy``, as molecule/common/*.yml call it.

Molecule's own playbooks take 11 s to create two containers and 4 s to remove them; this takes 2 s and one. A platform
of molecule.yml names its image and, if it wants some, `devices`, and `networks` with its address there; the rest of a
host is as in the lab.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.errors import NotFound

from . import engine
from .hosts import MACHINE
from .settings import NAME, LabError

_BOOT_SECONDS = 60
_UP = {"running", "degraded"}  # what systemd says when it has started all there is


def options(platform: Mapping[str, Any]) -> dict[str, Any]:
    """How a platform of molecule.yml is run: as a host of the lab, with an executable /tmp."""
    return MACHINE | {
        "image": platform["image"],
        "name": platform["name"],
        "hostname": platform["hostname"],
        "devices": platform.get("devices", []),
        "tmpfs": MACHINE["tmpfs"] | {"/tmp": "exec"},
        "network": NAME,
    }


def create(client: docker.DockerClient, platform: Mapping[str, Any]) -> None:
    """Make a host anew and wait until it has booted."""
    destroy(client, platform)
    networks = {
        one["name"]: client.api.create_endpoint_config(ipv4_address=one["ipv4_address"])
        for one in platform.get("networks", ())
    }
    container = client.containers.run(detach=True, networking_config=networks or None, **options(platform))
    deadline = time.monotonic() + _BOOT_SECONDS
    while container.exec_run(["systemctl", "is-system-running"]).output.decode().strip() not in _UP:
        if time.monotonic() > deadline:
            raise LabError(f"{platform['name']} does not boot within {_BOOT_SECONDS} s; see `docker logs`")
        time.sleep(0.2)


def destroy(client: docker.DockerClient, platform: Mapping[str, Any]) -> None:
    """Remove a host, if it is there, with its volumes."""
    with contextlib.suppress(NotFound):
        client.containers.get(platform["name"]).remove(force=True, v=True)


def main() -> None:
    """Do to all platforms of the running scenario what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.scenario", description=__doc__)
    parser.add_argument("verb", choices=["create", "destroy"])
    do = {"create": create, "destroy": destroy}[parser.parse_args().verb]
    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    client = engine.client()
    with concurrent.futures.ThreadPoolExecutor(len(platforms)) as pool:
        list(pool.map(lambda platform: do(client, platform), platforms))


if __name__ == "__main__":
    main()
