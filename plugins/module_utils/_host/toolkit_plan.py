"""What the role nvidia_container_toolkit is to do on a host: from engine, toolkit, wishes and the role's tables.

`plan_toolkit` is pure; `read_toolkit` and `describe` look at programs, files and units. What cannot be met raises
ContainersError, or ConfigFileError for a daemon.json that nobody can read, before anything is changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._errors import ContainersError
from .daemon_json import merge
from .docker import CDI_SINCE, SETTINGS, Engine, at_least
from .docker_unit import validation
from .packages import read_packages
from .planned import Host
from .system import Answer, Run, read_text
from .vendor import STEPS, Vendor, differing_vendor, vendor_of
from .wanted import differing_files, differing_services, read_services

__all__ = ["Plan", "Toolkit", "Wishes", "describe", "is_able", "plan_toolkit", "read_toolkit"]

_SINCE = "1.18"  # the first version that brings nvidia-cdi-refresh

_PROGRAM = "usr/bin/nvidia-ctk"
_CONFIGURE = ("nvidia-ctk", "--quiet", "runtime", "configure", "--runtime=docker", "--dry-run")
_FLAGS: Mapping[str, Sequence[str]] = {"cdi": ("--cdi.enabled",), "legacy": ()}
_GENERATE_SECONDS = 120  # with many GPUs, and no persistence daemon

_SPECIFICATION = "/var/run/cdi/nvidia.yaml"
_ENVIRONMENT = "/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
_REFRESH, _WATCHER = "nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path"
# As the service itself does it, with its environment.
_GENERATE = (
    *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--property=EnvironmentFile=-{_ENVIRONMENT}"),
    *("/usr/bin/nvidia-ctk", "--quiet", "cdi", "generate", "--output="),
)
_LINKS = """\
# Managed by Ansible, role gpuhosts.vllm.nvidia_container_toolkit.
# runc tells systemd of a container's devices as /dev/char/MAJOR:MINOR. Where there is no such link, and there is none
# for NVIDIA's devices, the container loses its GPUs at the next daemon-reload (NVIDIA/nvidia-container-toolkit#48). By
# now every device that the specification names is there, and the container engines start after this service.
[Service]
ExecStartPost=/usr/bin/nvidia-ctk --quiet system create-dev-char-symlinks
"""
_FILES: Mapping[str, str] = {f"/etc/systemd/system/{_REFRESH}.d/gpuhosts.conf": _LINKS}
_NOT_ASKED = Answer(-1)
_OF_GPUS = re.compile(r'kind"?: *"?nvidia\.com/gpu')
_ELSEWHERE = re.compile(rf"(?m)^NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=(?!{re.escape(_SPECIFICATION)}$)")


@dataclass(frozen=True)
class Wishes:
    """The role's variables, without their prefix nvidia_container_toolkit."""

    mode: str  # cdi or legacy
    version: str
    mirror: str
    key_checksum: str


@dataclass(frozen=True)
class Toolkit:
    """The toolkit of a host, as it is."""

    present: bool = False
    settings: Answer = _NOT_ASKED  # what it wants of daemon.json
    stale: tuple[str, ...] = ()  # specifications that nothing refreshes
    elsewhere: bool = False  # the fresh one lies where it is gone after a reboot, or is not looked for
    specification: str = ""
    generated: Answer = _NOT_ASKED  # what the specification would be now


@dataclass(frozen=True)
class Plan:
    """What the role installs and writes."""

    vendor: Vendor
    settings: Mapping[str, Any] = field(default_factory=dict)  # what daemon.json is to say
    is_said: bool = True  # by daemon.json, already
    notes: tuple[str, ...] = ()  # what an operator should read


def read_toolkit(root: Path, mode: str, answer: Callable[..., Answer]) -> Toolkit:
    """What is there, and what nvidia-ctk says of it."""
    if not (root / _PROGRAM).exists():
        return Toolkit()
    directory = root / "etc/cdi"
    files = sorted([*directory.rglob("*.json"), *directory.rglob("*.yaml")])
    return Toolkit(
        present=True,
        settings=answer([*_CONFIGURE, *_FLAGS[mode]]),
        stale=tuple(f"/{path.relative_to(root)}" for path in files if _OF_GPUS.search(read_text(path))),
        elsewhere=bool(_ELSEWHERE.search(read_text(root / _ENVIRONMENT.lstrip("/")))),
        specification=read_text(root / _SPECIFICATION.lstrip("/")),
        generated=answer(_GENERATE, seconds=_GENERATE_SECONDS),
    )


def is_able(engine: Engine, mode: str) -> bool:
    """Whether the engine can hand out GPUs."""
    return "nvidia" in (engine.info or {}).get("Runtimes", {}) and (mode == "legacy" or engine.has_cdi)


def plan_toolkit(
    engine: Engine, toolkit: Toolkit, wishes: Wishes, host: Host, platform: Mapping[str, Any], *, later: Collection[str]
) -> Plan:
    """The plan for a host; ``platform`` is its record in the role's table.

    ``later`` says what may still be mended: an engine that is "missing", too "old", or "unable" to hand out GPUs.
    """
    if not at_least(wishes.version, _SINCE):
        raise ContainersError(
            f"nvidia_container_toolkit_version is {wishes.version}; before {_SINCE} nothing refreshes the CDI "
            f"specification. Set a newer version."
        )
    current = engine.settings
    _check_engine(engine, wishes, host, later)
    vendor = vendor_of(platform, platform["toolkit"], asdict(wishes))
    if not toolkit.present:
        return Plan(vendor)
    if toolkit.settings.code:
        raise ContainersError(
            f"{host.name}: {' '.join(_CONFIGURE)} failed: {toolkit.settings.errors.strip()}. Nothing was changed."
        )
    settings = json.loads(toolkit.settings.output)
    return Plan(vendor, settings, merge(current, settings) == current, _notes(toolkit, host))


def describe(
    plan: Plan, engine: Engine, toolkit: Toolkit, mode: str, host: Host, root: Path, run: Run
) -> dict[str, Any]:
    """The plan as a fact, with what differs by step of the role; a step without differences is not run.

    What only the programs know that are still to be installed is not told yet.
    """
    packages = read_packages(root, run, words=tuple(plan.vendor.packages))
    differs = differing_vendor(plan.vendor, packages, root, run)
    if toolkit.present:
        differs |= _differences(plan, engine, toolkit, mode, root, run)
    todo = {step: bool(reasons) for step, reasons in differs.items()}
    # Runtimes are taken up by a reload, CDI only by a restart; from 28.3 on an engine has it without being told.
    reloads = mode == "legacy" or engine.has_cdi
    return {
        "vendor": {**plan.vendor.to_dict(), "todo": {step: todo[step] for step in STEPS}},
        "settings": plan.settings,
        "validate": validation(root, run, host.name) if todo.get("settings") else "",
        "apply": "reload" if reloads else "restart",
        "runs": engine.info is not None,
        "files": _FILES,
        "stale": toolkit.stale,
        "environment": {"path": _ENVIRONMENT, "regexp": _ELSEWHERE.pattern.removeprefix("(?m)")},
        "present": toolkit.present,
        "differs": differs,
        "todo": todo,
        "install": any(todo[step] for step in STEPS),
        "settled": not any(todo.values()),
    }


def _check_engine(engine: Engine, wishes: Wishes, host: Host, later: Collection[str]) -> None:
    """There is an engine, of packages, that knows CDI where that is asked for."""
    if engine.info is None:
        if "missing" not in later:
            raise ContainersError(
                f"{host.name}: no Docker Engine answers on /run/docker.sock. Run the role docker_engine first."
            )
        return
    if str(engine.info.get("DockerRootDir", "/var/snap")).startswith("/var/snap"):
        raise ContainersError(
            f"{host.name}: Docker is a snap, which can be given no runtime. Run the role docker_engine first, after "
            f"the snap is removed."
        )
    if wishes.mode == "cdi" and not at_least(engine.version, CDI_SINCE) and "old" not in later:
        raise ContainersError(
            f"{host.name} has Docker Engine {engine.version}; CDI begins with {CDI_SINCE}. Set docker_engine_source to "
            f"'docker' for a newer engine (and remove this one first), or nvidia_container_toolkit_mode to 'legacy', "
            f"which hands GPUs to containers through NVIDIA's runtime."
        )
    if "unable" not in later and not is_able(engine, wishes.mode):
        raise ContainersError(
            f"{host.name}: the engine runs without NVIDIA's runtime or without CDI, though {SETTINGS} asks for both. "
            f"Look for options of dockerd that say otherwise (systemctl cat docker), and for its complaints "
            f"(journalctl -u docker)."
        )


def _notes(toolkit: Toolkit, host: Host) -> tuple[str, ...]:
    if not toolkit.generated.code:
        return ()
    lines = toolkit.generated.errors.strip().splitlines()
    note = (
        f"{host.name}: no CDI specification can be made of its GPUs now; nvidia-cdi-refresh does it when the driver is "
        f"loaded. nvidia-ctk says: {lines[-1] if lines else 'nothing'}"
    )
    return (note,)


def _differences(plan: Plan, engine: Engine, toolkit: Toolkit, mode: str, root: Path, run: Run) -> dict[str, list[str]]:
    services = read_services([_REFRESH, _WATCHER], run)
    links = differing_files(root, _FILES)
    outdated = toolkit.specification != toolkit.generated.output.strip()
    refreshed = [f"{_SPECIFICATION} is another one"] if outdated else []
    return {
        "settings": [] if plan.is_said else [f"{SETTINGS} does not say what nvidia-ctk wants"],
        "engine": [] if is_able(engine, mode) else ["the engine has not taken up what daemon.json says"],
        "stale": [f"nothing refreshes {path}" for path in toolkit.stale],
        "environment": [f"{_ENVIRONMENT} has the specification elsewhere"] if toolkit.elsewhere else [],
        "links": links,
        "units": differing_services(services, [_REFRESH], active=False) + differing_services(services, [_WATCHER]),
        # The refresh makes the links, too. Without a driver it can do nothing.
        "specification": [] if toolkit.generated.code else [*links, *refreshed],
    }
