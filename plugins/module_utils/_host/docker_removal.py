"""Whether a Docker Engine may go from a host: whose it is, and what containers there are; private to the collection."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from .._errors import ContainersError
from .docker import containers_of, is_installed

__all__ = ["may_go"]

_OF_DOCKER = "moby"  # its namespace in containerd


def may_go(root: Path, host: str, mark: str, *, unmarked: bool = False, unasked: bool = False) -> tuple[bool, str]:
    """Whether an engine is the role's to remove, and why not.

    :param mark: file that the role leaves before it installs an engine where there was none.
    :param unmarked: an engine without it may go as well.
    :param unasked: one that does not answer may go as well.
    :raises ContainersError: there are containers, or nobody can tell.
    """
    there = is_installed(root)
    if not (unmarked or (root / mark.lstrip("/")).exists()):
        stays = "it stays. docker_engine_absent_unmarked=true removes it."
        return (
            False,
            f"{host}: nothing says that the role docker_engine has installed its Docker; {stays}" if there else "",
        )
    running = _running(root)
    others = sum(running[name] for name in running if name != _OF_DOCKER)
    if others:
        raise ContainersError(
            f"{host} runs {others} containers of others than Docker by the same containerd, as Kubernetes does. Remove "
            "them, or leave Docker on it with teardown_hardware=false."
        )
    known = containers_of(root)
    if known:
        raise ContainersError(
            f"{host} has {known} containers. Remove them with `docker container rm --force`, or leave Docker on it "
            "with teardown_hardware=false."
        )
    if known is None and (there or running[_OF_DOCKER]) and not unasked:
        raise ContainersError(
            f"{host}: its Docker Engine does not answer, so nobody can tell whether it has containers"
            + (f"; {running[_OF_DOCKER]} of them run without it" if running[_OF_DOCKER] else "")
            + ". Start it with `systemctl start docker`, or set docker_engine_absent_unasked=true to remove it all the "
            "same."
        )
    return True, ""


def _running(root: Path) -> Counter[str]:
    """Containers that run, by the namespace of containerd: each has a process that outlives the daemons."""
    found: Counter[str] = Counter()
    for path in root.glob("proc/[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended
        if re.search(r"(?:^|/)containerd-shim[^/]*$", words[0]) and "-namespace" in words[:-1]:
            found[words[words.index("-namespace") + 1]] += 1
    return found
