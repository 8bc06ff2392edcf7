"""Reads and validates vllm_models, looking at no host; private to the collection.

:func:`read_wishes` turns the entries as the operator wrote them into frozen :class:`Wish` records, or raises one
:class:`~._errors.WishError` that names every mistake at once: where it is, what is wrong, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._engine.probe import TASKS
from .._errors import WishError
from .._releases.versions import DEFAULT_VERSION
from .environment import OWNED, directory_problems, environment_problems
from .options import check_options, did_you_mean, known_releases, options_of, wrong_value

__all__ = ["PORTS", "Adapter", "Parallelism", "Wish", "read_wishes"]

AUTO = "auto"
PORTS = range(1024, 65001)  # no privileges needed below it, room above it for replicas that count up
# Bounds far beyond anything that exists, so that a slip of the finger is told and not computed.
MOST_REPLICAS = 10_000
MOST_TOKENS = 1_000_000_000
MOST_REQUESTS = 1_000_000
MOST_GPUS = 1024  # in either direction
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")  # fits a unit, a file, a URL
LONGEST_NAME = 100
# As the hub has it: two names at most, each beginning with a letter or digit, without -- and ..
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# A page or a file of the hub or of a mirror: its address, the model, and perhaps the revision.
_URL = re.compile(r"(https?://[^?#]+?)/([^/?#]+/[^/?#]+?)(?:/(?:tree|blob|resolve)/([^/?#]+)[^?#]*)?/?(?:[?#].*)?")
_PUBLIC = re.compile(r"https?://(www\.)?(huggingface\.co|hf\.co)")
# What git takes, and what fits a directory in the store of models.
_REVISION = re.compile(r"(?!.*(\.\.|//|/\.|/$))[A-Za-z0-9_][\w./+-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Parallelism:
    """How one instance is spread over GPUs."""

    tensor: int = 1
    pipeline: int = 1
    expert: bool = False


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of a model."""

    name: str
    source: str
    revision: str | None = None


@dataclass(frozen=True)
class Wish:
    """One entry of vllm_models. None stands for ``auto``: the planner, or vLLM itself, decides."""

    where: str  # vllm_models[0]
    name: str
    source: str
    revision: str | None = None
    task: str | None = None
    replicas: int | None = None
    objective: str = "throughput"
    context_length: int | None = None  # tokens
    concurrency: int | None = None  # requests
    parallelism: Parallelism | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_dtype: str | None = None
    runtime: str = "systemd"
    executor: str | None = None
    port: int | None = None
    host_names: frozenset[str] | None = None  # None: every GPU host
    lora: tuple[Adapter, ...] = ()
    tracing: float = 0.0  # part of the requests
    extra_args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


class _WrongError(Exception):
    """What is wrong with one value, without the place."""


def read_wishes(
    models: Any,
    version: str | None = None,
    groups: Mapping[str, Iterable[str]] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> tuple[list[Wish], list[str]]:
    """The wishes, and warnings about them.

    ``version`` is that of vLLM (None: the default of the role vllm); ``groups`` are the inventory's groups with their
    hosts, by which ``hosts:`` of a model is understood (empty: they are not known); ``environment`` is that
    of all engines, vllm_environment.

    :raises WishError: any of the entries is wrong, or the environment.
    """
    if not isinstance(models, (list, tuple)) or not models:
        raise WishError(["vllm_models: names no model; give it a list of entries with at least name and source."])
    problems = [f"vllm_environment: {wrong}" for wrong in environment_problems(environment or {}, "vllm_environment")]
    warnings: list[str] = []
    release = version or DEFAULT_VERSION
    if options_of(release) is None:
        warnings.append(
            f"vLLM {release} is not in the option catalogue, which knows {', '.join(known_releases())}: "
            "extra_args are checked by vLLM itself, on the hosts."
        )
    wishes = []
    for number, entry in enumerate(models):
        before = len(problems)
        values = _entry(entry, f"vllm_models[{number}]", release, groups, problems)
        if len(problems) == before:
            wishes.append(Wish(**values))
    problems += _repeated(models, "name", "give every model a name of its own")
    problems += _taken(wishes)
    problems += _repeated(models, "port", "choose another, or leave it out")
    if problems:
        raise WishError(problems)
    return wishes, warnings


def _entry(
    entry: Any, where: str, release: str, groups: Mapping[str, Iterable[str]] | None, problems: list[str]
) -> dict[str, Any]:
    """The fields of a Wish; mistakes are added to ``problems``."""
    if not isinstance(entry, Mapping):
        problems.append(f"{where}: is {entry!r}; an entry is a mapping with at least name and source.")
        return {}
    problems += (f"{where}: has no {key}; every model needs one." for key in ("name", "source") if key not in entry)
    values = _read(entry, _FIELDS, where, problems)
    plugins = bool(values.get("env", {}).get("VLLM_PLUGINS"))
    arguments = check_options(values.get("extra_args", {}), release, f"{where}.extra_args", problems, plugins=plugins)
    problems += (f"{where}.extra_args: {wrong}" for wrong in directory_problems(arguments, {}))
    if values.get("concurrency") and "max-num-seqs" in arguments:
        problems.append(f"{where}.extra_args: 'max-num-seqs' is what concurrency sets; keep one of them.")
    dtype = values.get("kv_cache_dtype")
    wrong_dtype = dtype and wrong_value("kv-cache-dtype", dtype, release, plugins=plugins)
    if wrong_dtype:
        problems.append(f"{where}.kv_cache_dtype: {wrong_dtype}")
    problems += (f"{where}.{wrong}" for wrong in _of_paths(values))
    if values.get("hosts") is not None and groups:
        values["hosts"] = _members(values["hosts"], groups, f"{where}.hosts", problems)
    values["host_names"] = values.pop("hosts", None)
    return {**values, "where": where, "extra_args": arguments}


def _of_paths(values: Mapping[str, Any]) -> Iterable[str]:
    """Revisions of what is no model of the hub."""
    adapters = {f"lora[{number}].": adapter for number, adapter in enumerate(values.get("lora", ()))}
    sources = {"": (values.get("source"), values.get("revision"))}
    sources.update((place, (adapter.source, adapter.revision)) for place, adapter in adapters.items())
    for place, (source, revision) in sources.items():
        if revision and str(source).startswith("/"):
            yield f"{place}revision: {source} is a path, and only a model of the hub has revisions; leave it out."


def _read(entry: Mapping[Any, Any], fields: Mapping[str, _Check], where: str, problems: list[str]) -> dict[str, Any]:
    """The values of a mapping, each checked by its field; mistakes are added to ``problems``."""
    for key in entry:
        if key not in fields:
            hint = did_you_mean(str(key), fields) or f"; there are {', '.join(fields)}."
            problems.append(f"{where}: unknown key {str(key)!r}{hint}")
    values = {}
    for key, check in fields.items():
        if key in entry:
            try:
                values[key] = check(entry[key])
            except _WrongError as error:
                problems.append(f"{where}.{key}: {error}")
    return values


def _members(
    names: Iterable[str], groups: Mapping[str, Iterable[str]], where: str, problems: list[str]
) -> frozenset[str]:
    """The hosts that a list of groups and hosts means."""
    host_names = {name for members in groups.values() for name in members}
    found: set[str] = set()
    for name in sorted(names):
        if name not in groups and name not in host_names:
            hint = did_you_mean(name, host_names.union(groups)) or "; name a group or a host of the inventory."
            problems.append(f"{where}: {name!r} is no group and no host of the inventory{hint}")
        found.update(groups.get(name, [name]))
    return frozenset(found)


def _repeated(models: Sequence[Any], key: str, advice: str) -> Iterable[str]:
    """A problem for every entry that has the same value as an earlier one."""
    first: dict[str, int] = {}
    for number, entry in enumerate(models):
        if isinstance(entry, Mapping) and entry.get(key) is not None:
            earlier = first.setdefault(str(entry[key]), number)
            if earlier != number:
                taken = f"{entry[key]!r} is already the {key} of vllm_models[{earlier}]"
                yield f"vllm_models[{number}].{key}: {taken}; {advice}."


def _taken(wishes: Sequence[Wish]) -> Iterable[str]:
    """A problem for every adapter with the name of a model or of another adapter: clients ask for it by that."""
    known = {wish.name: wish.where for wish in wishes}
    for wish in wishes:
        for number, adapter in enumerate(wish.lora):
            where = f"{wish.where}.lora[{number}]"
            if adapter.name in known:
                yield f"{where}.name: {adapter.name!r} is already the name of {known[adapter.name]}; choose another."
            known.setdefault(adapter.name, where)


# Checks of single values: they return the value as a Wish holds it, or raise _WrongError.

_Check = Callable[[Any], Any]


def _auto(check: _Check) -> _Check:
    return lambda value: None if value in (AUTO, None) else check(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongError(f"{value!r} is not a text; quote it if it looks like a number.")
    return value


def _short(value: Any) -> str:
    """A value in a message, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _name(value: Any) -> str:
    if not _NAME.fullmatch(_text(value)):
        raise _WrongError(f"{_short(value)} may hold a-z, 0-9, '.', '_' and '-', and starts with a letter or digit.")
    if len(value) > LONGEST_NAME:
        raise _WrongError(f"{_short(value)} is longer than the {LONGEST_NAME} characters that fit a unit.")
    return str(value)


def _source(value: Any) -> str:
    if not _text(value).startswith("/") and not _HUB_ID.fullmatch(value):
        raise _WrongError(
            f"{_short(value)} is neither a model of the hub (organisation/model) nor an absolute path.{_instead(value)}"
        )
    if ".." in value.split("/") or not value.isprintable():
        raise _WrongError(f"{_short(value)} is no path without detours; write it without '..' and control characters.")
    return str(value)


def _instead(url: str) -> str:
    """What to write for a URL."""
    found = _URL.fullmatch(url)
    if found and _HUB_ID.fullmatch(found[2]):
        revision = f", revision to {found[3]}" if found[3] else ""
        mirror = "" if _PUBLIC.fullmatch(found[1]) else f", and fleet_hub_endpoint to {found[1]}, for all models"
        return f" Set source to {found[2]}{revision}{mirror}."
    return " Put it on the hosts and name its directory there." if "://" in url else ""


def _revision(value: Any) -> str:
    if not _REVISION.fullmatch(_text(value)):
        raise _WrongError(f"{_short(value)} is no branch, tag or commit, such as main, v1.0 or refs/pr/1.")
    return str(value)


def _whole(least: int, most: int | None = None, *, limit: int = MOST_TOKENS) -> _Check:
    """A whole number; digits in a text are one too, which is what Ansible before 2.19 makes of templates."""

    def check(value: Any) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value
        if isinstance(number, bool) or not isinstance(number, int) or number < least or (most and number > most):
            extent = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise _WrongError(f"{_short(value)} is not a whole number {extent}.")
        if number > limit:
            raise _WrongError(f"{_short(value)} is more than there can be; it is at most {limit}.")
        return number

    return check


def _fraction(value: Any) -> float:
    return _of_one(value, "above 0 and up to 1")


def _of_one(value: Any, extent: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number <= 1:
        raise _WrongError(f"{value!r} is not a number {extent}.")
    return number


def _part(value: Any) -> float:
    return 0.0 if value in (0, "0") and not isinstance(value, bool) else _of_one(value, "from 0 to 1")


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongError(f"{value!r} is neither true nor false.")
    return value


def _one_of(*choices: str) -> _Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise _WrongError(f"{value!r} is not one of {', '.join(choices)}.")
        return str(value)

    return check


def _parallelism(value: Any) -> Parallelism:
    if not isinstance(value, Mapping):
        raise _WrongError(f"{value!r} is neither auto nor a mapping such as {{tensor: 4, pipeline: 2}}.")
    problems: list[str] = []
    values = _read(
        value,
        {"tensor": _whole(1, limit=MOST_GPUS), "pipeline": _whole(1, limit=MOST_GPUS), "expert": _boolean},
        "",
        problems,
    )
    if problems:
        raise _WrongError(" ".join(problem.lstrip(".: ") for problem in problems))
    return Parallelism(**values)


def _hosts(value: Any) -> frozenset[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _WrongError(f"{value!r} is neither a group or host nor a list of them; leave it out for all GPU hosts.")
    return frozenset(names)


def _lora(value: Any) -> tuple[Adapter, ...]:
    if value is not None and not isinstance(value, (list, tuple)):
        raise _WrongError(f"{_short(value)} is not a list of adapters, each with name and source.")
    problems: list[str] = []
    adapters = []
    for number, entry in enumerate(value or ()):
        before = len(problems)
        where = f"[{number}]"
        if not isinstance(entry, Mapping):
            problems.append(f"{where}: is {_short(entry)}; an adapter is a mapping with name and source.")
            continue
        missing = [key for key in ("name", "source") if key not in entry]
        problems += (f"{where}: has no {key}; every adapter needs one." for key in missing)
        values = _read(entry, _ADAPTER, where, problems)
        if len(problems) == before:
            adapters.append(Adapter(**values))
    if problems:
        raise _WrongError(" ".join(problems))
    return tuple(adapters)


def _mapping(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise _WrongError(f"{value!r} is not a mapping of names to values.")
    return dict(value or {})


def _env(value: Any) -> dict[str, str]:
    variables = _mapping(value)
    problems = [f"{name} is not for env: {OWNED[name]}" for name in variables if name in OWNED]
    problems += environment_problems(variables, "env")
    if problems:
        raise _WrongError(" ".join(problems))
    return {name: str(content) for name, content in sorted(variables.items())}


_ADAPTER: dict[str, _Check] = {"name": _name, "source": _source, "revision": _auto(_revision)}
_FIELDS: dict[str, _Check] = {
    "name": _name,
    "source": _source,
    "revision": _auto(_revision),
    "task": _auto(_one_of(*TASKS)),
    "replicas": _auto(_whole(1, limit=MOST_REPLICAS)),
    "objective": _one_of("throughput", "latency", "balanced"),
    "context_length": _auto(_whole(1, limit=MOST_TOKENS)),
    "concurrency": _auto(_whole(1, limit=MOST_REQUESTS)),
    "parallelism": _auto(_parallelism),
    "gpu_memory_utilization": _auto(_fraction),
    "kv_cache_dtype": _auto(_text),
    "runtime": _one_of("systemd", "docker"),
    "executor": _auto(_one_of("mp", "ray")),
    "port": _auto(_whole(PORTS[0], PORTS[-1])),
    "hosts": _auto(_hosts),
    "lora": _lora,
    "tracing": _part,
    "extra_args": _mapping,
    "env": _env,
}
