"""Repositories of the vendors of drivers and engines, as they are laid out there, with small stand-ins in them.

A stand-in has the real package's name, dependencies and paths, so that what a role asks apt for is what it would ask
the vendor's repository for. What it does beyond that its own module says. To add repositories: a function that returns
`Repository` records, and its name in `repositories`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import docker

from tests.lab.phases import Say
from tests.lab.settings import CACHE
from tests.lab.wheelhouse import MIRROR

from . import docker_ce, grafana, nginx_org, nvidia, toolkit, ubuntu
from .apt import Repository
from .signing import Key, opened

_HOME = CACHE / "vendor-key"
_TREES = CACHE / "vendor-made-from"  # what each directory of the mirror was made from
_WRITERS = (Path(__file__).with_name("apt.py"), Path(__file__).with_name("deb.py"))


def prepare(client: docker.DockerClient, say: Say) -> None:
    """Write the repositories whose data have changed."""
    with opened(_HOME, say) as key:
        publish(repositories(client, key, say), MIRROR, _TREES, key, say)


def repositories(client: docker.DockerClient, key: Key, say: Say) -> list[Repository]:
    """Everything that vendors serve."""
    return [
        *nvidia.repositories(key),
        *docker_ce.repositories(client, key, say),
        *toolkit.repositories(client, key, say),
        *nginx_org.repositories(client, key, say),
        *grafana.repositories(key),
        *ubuntu.repositories(key),
    ]


def publish(wanted: Iterable[Repository], mirror: Path, made_from: Path, key: Key, say: Say) -> None:
    """Write every directory anew whose repositories are not those it was made from; leave the rest of the mirror."""
    writers = [path.read_text() for path in _WRITERS]
    trees: dict[str, list[Repository]] = {}
    for repository in wanted:
        trees.setdefault(repository.path, []).append(repository)
    for path, suites in trees.items():
        stamp = made_from / path.replace("/", "-")
        digest = hashlib.sha256(repr((suites, key.public, writers)).encode()).hexdigest()
        if (mirror / path).is_dir() and stamp.is_file() and stamp.read_text() == digest:
            continue
        say(f"{path}: {sum(len(suite.packages) for suite in suites)} packages")
        mirror.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vendor-", dir=mirror) as directory:
            for suite in suites:
                suite.write(Path(directory), key)
            shutil.rmtree(mirror / path, ignore_errors=True)
            (mirror / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(directory) / path).rename(mirror / path)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
