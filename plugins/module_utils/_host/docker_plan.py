"""What the role docker_engine is to do on a host, decided from the engine that is there, wishes and the role's tables.

Pure but for `describe`, which compares with packages, files and units. What cannot be met raises ContainersError, or
ConfigFileError for a daemon.json that nobody can read, before anything is changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._errors import ContainersError
from .daemon_json import merge
from .docker import CDI_SINCE, SETTINGS, Engine, at_least
from .docker_unit import validation
from .packages import Package, read_packages
from .planned import Host
from .system import Run, read_text
from .vendor import STEPS, Vendor, differing_vendor, vendor_of
from .wanted import differing_directories, differing_files, differing_services, read_services

__all__ = ["Plan", "Wishes", "describe", "plan_docker"]

_SERVICE = "docker"
_BACKEND = "firewall-backend"
# What holds unless docker_engine_settings says otherwise. Without the first, a restart of Docker ends what runs in it.
_OURS: Mapping[str, Any] = {
    "live-restore": True,
    "log-driver": "json-file",
    "log-opts": {"max-size": "100m", "max-file": "5"},
}
# Docker switches forwarding on with iptables only (https://docs.docker.com/engine/network/firewall-nftables/).
_FORWARDING = {
    "/etc/sysctl.d/60-gpuhosts-docker.conf": (
        "# Managed by Ansible, role gpuhosts.vllm.docker_engine.\nnet.ipv4.ip_forward = 1\n"
    )
}
_FORWARDS = "proc/sys/net/ipv4/ip_forward"


@dataclass(frozen=True)
class Wishes:
    """The role's variables, without their prefix docker_engine."""

    source: str  # docker or distro
    version: str
    containerd_version: str
    mirror: str
    key_checksum: str
    key_fingerprint: str
    settings: Mapping[str, Any]
    minimum_version: str  # of an engine that is somebody else's
    firewall: str = "auto"  # auto, iptables or nftables


@dataclass(frozen=True)
class Plan:
    """What the role installs and writes."""

    vendor: Vendor
    strangers: tuple[str, ...] = ()  # packages and files of an engine that is left alone
    settings: Mapping[str, Any] = field(default_factory=dict)  # what daemon.json is to say
    unsaid: tuple[str, ...] = ()  # keys that daemon.json says otherwise
    modules: str = ""  # package with modules of the kernel that the engine does not start without
    forwards: bool = False  # the host is to forward packets, which the engine does not see to
    notes: tuple[str, ...] = ()  # what an operator should read


def plan_docker(engine: Engine, wishes: Wishes, host: Host, platform: Mapping[str, Any]) -> Plan:
    """The plan for a host; ``platform`` is its record in the role's table."""
    sources = platform["sources"]
    if wishes.source not in sources:
        raise ContainersError(
            f"docker_engine_source is '{wishes.source}', but {host.platform} of {host.name} has no Docker Engine of "
            f"its own. Set docker_engine_source to '{next(iter(sources))}'."
        )
    settings = merge(_OURS, wishes.settings)
    options = wishes.settings.get("log-opts") or {}
    if not all(isinstance(value, str) for value in options.values()):
        raise ContainersError(
            f"docker_engine_settings: the engine takes strings only in log-opts; there is {json.dumps(options)}. Put "
            f"the numbers in quotes."
        )
    firewall = wishes.firewall
    if firewall == "auto":
        firewall = next(one for one in platform["firewalls"] if not _foreign_kernel(one, host, platform))
    _check_firewall(firewall, engine, wishes, host, platform)
    vendor = vendor_of(platform, sources[wishes.source], asdict(wishes))
    strangers = tuple(
        dict.fromkeys(owner or path for path, owner in engine.owners.items() if owner not in vendor.packages)
    )
    if strangers:
        return Plan(vendor, strangers, notes=(_left_alone(engine, wishes, host, strangers),))
    current = engine.settings
    if settings["live-restore"] and _is_in_swarm(engine):
        raise ContainersError(
            f"The engine of {host.name} is in swarm mode, in which it refuses to start with live-restore. Let it leave "
            f"the swarm (docker swarm leave), or set live-restore to false in docker_engine_settings."
        )
    if firewall != "iptables" or current.get(_BACKEND, firewall) != firewall:
        settings[_BACKEND] = firewall
    merged = merge(current, settings)
    return Plan(
        vendor,
        settings=settings,
        unsaid=tuple(key for key in settings if merged[key] != current.get(key)),
        modules=platform["firewalls"][firewall].get("modules", ""),
        forwards=firewall == "nftables",
        notes=_notes(engine, host),
    )


def describe(plan: Plan, engine: Engine, host: Host, root: Path, run: Run) -> dict[str, Any]:
    """The plan as a fact, with what differs by step of the role; a step without differences is not run."""
    packages = [] if plan.strangers else read_packages(root, run, words=(*plan.vendor.packages, *_words(plan)))
    modules = _missing_modules(plan.modules, packages, host.kernel)
    differs = {} if plan.strangers else _differences(plan, engine, packages, modules, root, run)
    todo = {step: bool(reasons) for step, reasons in differs.items()}
    return {
        "vendor": {**plan.vendor.to_dict(), "todo": {step: todo.get(step, False) for step in STEPS}},
        "settings": plan.settings,
        "validate": validation(root, run, host.name) if todo.get("settings") else "",
        "modules": modules,
        "forwarding": _FORWARDING if plan.forwards else {},
        "strangers": plan.strangers,
        "present": bool(engine.owners),
        "runs": engine.info is not None,
        "differs": differs,
        "todo": todo,
        "install": any(todo.get(step) for step in STEPS),
        "settled": not any(todo.values()),
    }


def _differences(
    plan: Plan, engine: Engine, packages: Sequence[Package], modules: Sequence[str], root: Path, run: Run
) -> dict[str, list[str]]:
    service = differing_services(read_services([_SERVICE], run), [_SERVICE])
    if not service and engine.info is None:
        service.append(f"{_SERVICE} runs, and does not answer")
    return {
        **differing_vendor(plan.vendor, packages, root, run),
        "settings": [
            *differing_directories(root, [str(Path(SETTINGS).parent)]),
            *(f"{SETTINGS} says otherwise of {key}" for key in plan.unsaid),
        ],
        "modules": [f"{name} is not installed" for name in modules],
        "forwarding": _differing_forwarding(root) if plan.forwards else [],
        "service": service,
    }


def _words(plan: Plan) -> tuple[str, ...]:
    return (plan.modules,) if plan.modules else ()


def _missing_modules(package: str, packages: Sequence[Package], running: str) -> list[str]:
    """Packages of modules for the kernel that runs, and for the newest one, which boots next."""
    if not package:
        return []
    there = {name: {_release(one) for one in packages if one.name == name} for name in (package, "kernel-core")}
    newest = max(there["kernel-core"], key=lambda one: [int(part) for part in re.findall(r"\d+", one)], default="")
    kernels = {kernel for kernel in (running, newest) if kernel}
    return [f"{package}-{kernel}" for kernel in sorted(kernels - there[package])]


def _release(package: Package) -> str:
    """What `uname -r` says of the kernel of a package."""
    return f"{package.version.partition(':')[2]}.{package.architecture}"


def _differing_forwarding(root: Path) -> list[str]:
    off = [] if read_text(root / _FORWARDS) == "1" else ["net.ipv4.ip_forward is not 1"]
    return differing_files(root, _FORWARDING) + off


def _is_in_swarm(engine: Engine) -> bool:
    return ((engine.info or {}).get("Swarm") or {}).get("LocalNodeState") == "active"


def _check_firewall(firewall: str, engine: Engine, wishes: Wishes, host: Host, platform: Mapping[str, Any]) -> None:
    """The backend is one that the engine has, and that the kernel has modules for."""
    foreign = _foreign_kernel(firewall, host, platform)
    if foreign:
        raise ContainersError(
            f"docker_engine_firewall: {firewall} needs {platform['firewalls'][firewall]['modules']} on {host.name}, "
            f"which is not made for its kernel {host.kernel}. Set docker_engine_firewall to 'auto' or 'nftables', or "
            f"boot the distribution's other kernel, whose name is without '{foreign}'."
        )
    since = platform["firewalls"][firewall].get("since", "")
    version = wishes.version if wishes.source == "docker" else engine.version
    if since and not at_least(version, since):
        there = f"the engine of {host.name} is {version or 'one that does not run yet'}"
        raise ContainersError(
            f"docker_engine_firewall: {firewall} begins with Docker Engine {since}; {there}. Set docker_engine_source "
            f"to 'docker' and docker_engine_version to {since} or newer, or docker_engine_firewall to 'iptables'."
        )
    if firewall == "nftables" and _is_in_swarm(engine):
        raise ContainersError(
            f"The engine of {host.name} is in swarm mode, which docker_engine_firewall: nftables does not know. Let it "
            f"leave the swarm (docker swarm leave), or set docker_engine_firewall to 'iptables'."
        )


def _foreign_kernel(firewall: str, host: Host, platform: Mapping[str, Any]) -> str:
    """What in the kernel's name says that the modules of a backend are not made for it; "": they are."""
    word = str(platform["firewalls"][firewall].get("not_for", ""))
    return word if word and word in host.kernel else ""


def _left_alone(engine: Engine, wishes: Wishes, host: Host, strangers: tuple[str, ...]) -> str:
    """What an operator should read of somebody else's engine; it has to answer and to be recent enough."""
    there = ", ".join(strangers)
    if not at_least(engine.version, wishes.minimum_version):
        answers = f"version {engine.version}" if engine.version else "nothing"
        raise ContainersError(
            f"{host.name}: {there} is there, and left alone, but what answers on /run/docker.sock is {answers}; a "
            f"Docker Engine {wishes.minimum_version} or newer is needed. Start or upgrade it, or remove it and run "
            f"this again."
        )
    return (
        f"{host.name} has a Docker already that is not of docker_engine_source '{wishes.source}' ({there}). It is left "
        f"alone, and so is daemon.json. To have it managed here, remove it, or set docker_engine_source accordingly."
    )


def _notes(engine: Engine, host: Host) -> tuple[str, ...]:
    if not engine.version or at_least(engine.version, CDI_SINCE):
        return ()
    note = (
        f"{host.name}: Docker Engine {engine.version} has no CDI ({CDI_SINCE} or newer has). GPUs reach its containers "
        f"through NVIDIA's runtime only, nvidia_container_toolkit_mode 'legacy'. For CDI, remove it and set "
        f"docker_engine_source to 'docker'."
    )
    return (note,)
