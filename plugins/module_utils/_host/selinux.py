"""What a service needs of SELinux, and what of it the host does not have yet; private to the collection.

Files tell: those of the kernel what holds now, those of the policy's store what holds after the next boot. SELinux's
own tools, of which each takes seconds, are asked only where something differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .steps import Step
from .system import Run, read_text

__all__ = ["TOOLS", "Needs", "is_enabled", "selinux_steps"]

# Has semanage, by this name on Debian, Ubuntu (packages.debian.org, packages.ubuntu.com) and Enterprise Linux 9 and 10
# (docs.redhat.com, "Using SELinux").
TOOLS = "policycoreutils-python-utils"


@dataclass(frozen=True)
class Needs:
    """What a service needs of SELinux."""

    booleans: tuple[str, ...] = ()  # to be on
    port_type: str = ""  # of the ports that it listens on
    known_ports: frozenset[int] = frozenset()  # those that it may listen on in every policy
    file_contexts: Mapping[str, str] = field(default_factory=dict)  # types by the pattern of their paths


def is_enabled(root: Path) -> bool:
    """Whether SELinux is on, enforcing or permissive: what a permissive host lacks fails once it enforces again."""
    return (root / "sys/fs/selinux/enforce").exists()


def selinux_steps(root: Path, run: Run, needs: Needs, ports: Sequence[int]) -> list[Step]:
    """Steps to what the host does not have yet; all changes of the policy are one, since it is compiled for each."""
    policy = re.search(r"(?m)^SELINUXTYPE=(\S+)", read_text(root / "etc/selinux/config"))
    store = root / "var/lib/selinux" / (policy[1] if policy else "targeted") / "active"
    lines, says = [], []

    lasting = read_text(store / "booleans.local").splitlines()
    for name in needs.booleans:
        now = read_text(root / "sys/fs/selinux/booleans" / name)
        # A policy that has no such boolean does not confine the service.
        if now and not (now.startswith("1") and f"{name}=1" in lasting):
            lines.append(f"boolean -m -1 {name}")
            says.append(f"SELinux: boolean {name} is on")

    typed = dict(re.findall(r"(?m)^portcon tcp (\d+) \w+:\w+:(\w+)", read_text(store / "ports.local")))
    differing = [port for port in ports if needs.port_type and port not in needs.known_ports]
    differing = [port for port in differing if typed.get(str(port)) != needs.port_type]
    listed = run(["semanage", "port", "--list"]) if differing else ""
    for port in differing:
        # A port that has a type of its own gets another one; a range that it lies in is none of its own.
        has_type = re.search(rf"(?m)^\w+\s+tcp\s.*(?<![-\d]){port}(?![-\d])", listed)
        lines.append(f"port {'-m' if has_type else '-a'} -t {needs.port_type} -p tcp {port}")
        says.append(f"SELinux: TCP port {port} is {needs.port_type}")

    contexts = dict(re.findall(r"(?m)^(/\S+)\s+\w+:\w+:(\w+)", read_text(store / "file_contexts.local")))
    labels = []
    for pattern, kind in needs.file_contexts.items():
        if contexts.get(pattern) != kind:
            lines.append(f"fcontext {'-m' if pattern in contexts else '-a'} -t {kind} '{pattern}'")
            labels.append(re.split(r"/[^/]*[\[(*+?]", pattern)[0])
            says.append(f"SELinux: {pattern} is {kind}")

    if not lines:
        return []
    steps = [Step(tuple(says), ("semanage", "import"), "\n".join(lines) + "\n")]
    return [*steps, *(Step(command=("restorecon", "-R", "-F", path)) for path in labels)]
