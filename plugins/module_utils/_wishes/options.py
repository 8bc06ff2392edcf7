"""Checks options of ``vllm serve`` against the catalogue of vLLM's releases; private to the collection."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .._releases.options import TABLES
from .._releases.values import JSON_OBJECTS, LEAST, MULTIPLES, PLUGGABLE, QUANTIZATIONS
from .._releases.versions import PAIRED_OPTIONS_SINCE

__all__ = ["Option", "check_options", "did_you_mean", "known_releases", "options_of", "wrong_value"]

# What the plan writes itself, and where an operator says it instead.
_OWNED = {
    "api-key": "it would stand in readable files. Set vllm_api_key",
    "config": "the role vllm writes that file. Put its options here, in extra_args",
    "data-parallel-size": "instances are placed one by one. Set replicas",
    "disable-log-stats": "a hang, a drain and what Prometheus shows are told by the metrics that it takes away",
    "device-ids": "the planner chooses the GPUs",
    "distributed-executor-backend": "it follows from the plan. Set executor",
    "enable-expert-parallel": "the plan says it. Set parallelism.expert",
    "gpu-memory-utilization": "the plan says it. Set gpu_memory_utilization",
    "grpc": "clients, probes and the load balancer speak HTTP",
    "headless": "it follows from the plan",
    "hf-token": "it would stand in readable files. Set vllm_hf_token",
    "host": "the engine listens where the load balancer looks for it. Set fleet_address of the host",
    "lora-modules": "adapters come and go without a restart. Set lora",
    "kv-cache-dtype": "the plan says it. Set kv_cache_dtype",
    "master-addr": "it follows from the plan",
    "master-port": "it follows from the plan",
    "max-model-len": "the plan says it. Set context_length",
    "model": "the plan says it. Set source",
    "nnodes": "it follows from the plan",
    "node-rank": "it follows from the plan",
    "otlp-traces-endpoint": "the plan says it. Set tracing, and fleet_otlp_endpoint",
    "pipeline-parallel-size": "the plan says it. Set parallelism.pipeline",
    "port": "the plan says it. Set port",
    "prefill-context-parallel-size": "an instance has tensor x pipeline GPUs. Set parallelism",
    "revision": "the plan says it. Set revision",
    "served-model-name": "the plan says it. Set name",
    "shutdown-timeout": "the unit has to wait longer than that. Set vllm_shutdown_timeout",
    "ssl-certfile": "keepers, probes and the load balancer speak plain HTTP to the engines",
    "ssl-keyfile": "keepers, probes and the load balancer speak plain HTTP to the engines",
    "tensor-parallel-size": "the plan says it. Set parallelism.tensor",
    "uds": "clients, probes and the load balancer speak TCP",
}


@dataclass(frozen=True)
class Option:
    """One option: ``takes`` is flag, switch (can be negated), int, float, value, or values (a list)."""

    name: str
    takes: str
    choices: tuple[str, ...] = ()


def known_releases() -> list[str]:
    """Releases of vLLM in the catalogue, oldest first."""
    return sorted(TABLES, key=_release)


def _release(version: str) -> tuple[int, ...]:
    """0.33.0, 0.33 and 0.33.1+cpu are of one release: (0, 33). Empty for what is no version."""
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


@cache
def options_of(version: str) -> dict[str, Option] | None:
    """Every option that a release has, by its name and its aliases; None for a release that is not in the catalogue."""
    options: dict[str, Option] = {}
    for release in known_releases():
        for line in TABLES[release].replace("\n    ", "").strip().splitlines():
            names, takes, *choices = line.split()
            name = names.split(",")[0]
            option = Option(name, takes, tuple(choices[0].split(",")) if choices else ())
            if name in PLUGGABLE and not option.choices:  # what vLLM itself brings is still known
                option = Option(name, takes, options[name].choices if name in options else QUANTIZATIONS)
            options.update(dict.fromkeys(names.split(","), option))
            if takes == "-":
                options = {key: other for key, other in options.items() if other.name != name}
        if _release(release) == _release(version):
            return options
    return None


def check_options(
    extra_args: Mapping[str, Any], version: str, where: str, problems: list[str], *, plugins: bool = False
) -> dict[str, Any]:
    """The options by the names that vLLM gives them; what is wrong with them is added to ``problems``.

    With ``plugins`` the engine loads some that may bring values of their own. Options of a release that is not in the
    catalogue are let through: vLLM's own parser sees them on the hosts.
    """
    catalogue = options_of(version)
    options = catalogue or options_of(known_releases()[-1]) or {}
    checked: dict[str, Any] = {}
    for key, value in extra_args.items():
        name, positive = _spelling(str(key), options, _release(version))
        option = options.get(name, Option(name, "value"))
        if option.name in _OWNED:
            problems.append(f"{where}: {str(key)!r} is not for extra_args: {_OWNED[option.name]}.")
        elif "." in name:
            outer, inner = str(key).split(".", 1)
            problems.append(f"{where}: write {str(key)!r} as a mapping, {outer}: {{{inner}: ...}}.")
        elif name not in options and catalogue is not None:
            hint = did_you_mean(name, options) or "; `vllm serve --help=all` lists those there are."
            problems.append(f"{where}: vLLM {version} has no option {str(key)!r}{hint}")
        elif option.name in checked:
            problems.append(f"{where}: {str(key)!r} names {option.name!r} a second time; keep one.")
        elif name in options and (wrong := _wrong(option, value, plugins=plugins)):
            problems.append(f"{where}.{key}: {wrong}")
        else:
            checked[option.name] = value if positive else not value
    # vLLM passes over a false that it has no negative form for; without it the file says what happens.
    flags = {name for name, option in options.items() if option.takes == "flag"}
    return {name: value for name, value in checked.items() if value is not False or name not in flags}


def wrong_value(name: str, value: Any, version: str, *, plugins: bool = False) -> str:
    """What is wrong with the value of an option of a release; empty if nothing is known to be."""
    option = (options_of(version) or {}).get(name)
    return _wrong(option, value, plugins=plugins) if option else ""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The end of a message about an unknown name; empty if there is nothing like it."""
    near = difflib.get_close_matches(name, sorted(candidates), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _spelling(key: str, options: Mapping[str, Option], release: tuple[int, ...]) -> tuple[str, bool]:
    """Name of the option that a key means, and whether it means it or its opposite."""
    name = key.lstrip("-").replace("_", "-")
    opposites = [name[len("no-") :]] if name.startswith("no-") else []
    if release >= PAIRED_OPTIONS_SINCE:
        opposites += [name.replace("disable-", "enable-", 1), name.replace("enable-", "disable-", 1)]
    if name not in options:
        for opposite in opposites:
            if opposite in options and options[opposite].takes == "switch":
                return opposite, False
    return name, True


def _wrong(option: Option, value: Any, *, plugins: bool = False) -> str:
    """What is wrong with the value of an option; empty if nothing is."""
    values = value if isinstance(value, list) else [value]
    choices = () if plugins and option.name in PLUGGABLE else option.choices
    strangers = [str(item) for item in values if choices and str(item) not in choices]
    wrong = ""
    if option.takes in ("flag", "switch"):
        wrong = "" if isinstance(value, bool) else f"it is a switch: write true or false, not {value!r}."
    elif value is None or isinstance(value, bool):
        wrong = "it takes a value, and there is none."
    elif isinstance(value, list) and option.takes != "values":
        wrong = "it takes one value, not a list."
    elif option.takes == "values" and any(isinstance(item, (dict, list)) for item in values):
        wrong = "it takes a list of plain values; write a mapping as JSON text."
    elif not _is_number(value, option.takes):
        wrong = f"it takes a number, not {value!r}."
    elif strangers:
        wrong = _stranger(option, strangers[0])
    return wrong or _wrong_number(option.name, value) or _wrong_json(option.name, value)


def _stranger(option: Option, value: str) -> str:
    hint = did_you_mean(value, option.choices) or "."
    own = " If a plug-in of vLLM brings it, name that in env.VLLM_PLUGINS." if option.name in PLUGGABLE else ""
    return f"{value!r} is not one of {', '.join(option.choices)}{hint}{own}"


def _wrong_number(name: str, value: Any) -> str:
    """What is wrong with a number; abbreviations such as 8k are vLLM's to read."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return ""
    if name in LEAST and number < LEAST[name]:
        return f"{value!r} is too little; it is at least {LEAST[name]:g}."
    if name in MULTIPLES and number % MULTIPLES[name]:
        return f"{value!r} is no multiple of {MULTIPLES[name]}, which kernels of attention need."
    return ""


def _wrong_json(name: str, value: Any) -> str:
    """What is wrong with a text that vLLM reads as JSON."""
    if name not in JSON_OBJECTS or isinstance(value, Mapping):
        return ""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        return f"it is no JSON ({error}); write it as a mapping."
    return "" if isinstance(found, Mapping) else f"{value!r} is no mapping."


def _is_number(value: Any, takes: str) -> bool:
    """Whether it is, where the option takes one."""
    try:
        {"int": int, "float": float}.get(takes, str)(str(value))
    except ValueError:
        return False
    return True
