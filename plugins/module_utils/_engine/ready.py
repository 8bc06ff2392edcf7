"""Waits until a vLLM instance really answers, or has nothing left to answer; private to the collection.

A healthy ``/health`` alone proves little: engines were seen to crash on their first request. So the stages are the
systemd unit, ``/health``, the model in ``/v1/models``, and an answer of the kind that the model is for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import ApiError, BusyError, NotReadyError, RefusedError
from .openai import OpenAiClient, parse_cache_config, parse_requests
from .probe import ask

__all__ = ["Ready", "UnitState", "boot_of", "wait_until_idle", "wait_until_ready", "wait_until_served"]

POLL_SECONDS = 1.0
TOKENS = 8  # of a completion
# What vLLM says in the metric cache_config_info that it resolved.
NUMBERS = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens", "kv_cache_max_concurrency", "gpu_memory_utilization")


# What vLLM logs of torch.compile (compilation/backends.py, decorators.py): of work done, and of work found done.
COMPILED = "Compiling a graph for compile range"
LOADED = "Directly load"


def boot_of(journal: str) -> str | None:
    """What kind of boot a journal is of: ``cold`` if all was compiled, ``warm`` if any was found, None: not told."""
    if LOADED in journal:
        return "warm"
    return "cold" if COMPILED in journal else None


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit."""

    loaded: bool
    active: str  # active, activating, deactivating, inactive, failed
    result: str  # why it ended: success, exit-code, signal, oom-kill, start-limit-hit, ...
    restarts: int  # by systemd itself, since it was started
    queued: bool = False  # it has something to do, and waits for other units

    @classmethod
    def from_properties(cls, output: str) -> UnitState:
        """The state in the output of ``systemctl show --property=LoadState,ActiveState,Result,NRestarts,Job``."""
        values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return cls(
            loaded=values.get("LoadState") == "loaded",
            active=values.get("ActiveState", "unknown"),
            result=values.get("Result", "unknown"),
            restarts=int(values.get("NRestarts") or 0),
            queued=bool(int(values.get("Job") or 0)),
        )


@dataclass(frozen=True)
class Ready:
    """An engine that answers."""

    seconds: float  # waited for it
    effective: dict[str, Any]  # what it has resolved for itself; values that it does not report are missing


def wait_until_ready(
    client: OpenAiClient,
    look_at_unit: Callable[[], UnitState],
    *,
    task: str,
    model: str,
    prompt: str,
    timeout_seconds: float,
    max_restarts: int,
) -> Ready:
    """Go through the stages, from the first one again after every failure, until all are passed in one go.

    :raises NotReadyError: the unit has failed or restarts in a loop, the API key is wrong, or the time is up.
    """

    def stages() -> Iterator[str | Mapping[str, Any]]:
        yield "health"
        _check_health(client)
        yield "models"
        entry = _listed(client, model)
        yield "answer"
        ask(client, task, model, prompt, TOKENS)
        yield _effective(entry, client.text("/metrics"))

    return _wait(stages, look_at_unit, timeout_seconds, max_restarts)


def wait_until_served(
    keeper_says: Callable[[], str],
    look_at_unit: Callable[[], UnitState],
    *,
    timeout_seconds: float,
    max_restarts: int,
) -> Ready:
    """Wait on a node that has no API until its keeper says that the instance answers.

    :param keeper_says: the metrics of the keeper; "" where there are none.
    :raises NotReadyError: the unit has failed or restarts in a loop, or the time is up.
    """

    def stages() -> Iterator[str | Mapping[str, Any]]:
        yield "keeper"
        found = re.search(r'^gpuhosts_keeper_state\{[^}]*\bstate="(\w+)"[^}]*\} 1$', keeper_says(), re.MULTILINE)
        if not found or found[1] != "serving":
            raise ApiError(f"its keeper says {found[1] if found else 'nothing'!r}")
        yield {}

    return _wait(stages, look_at_unit, timeout_seconds, max_restarts)


def _wait(
    stages: Callable[[], Iterator[str | Mapping[str, Any]]],
    look_at_unit: Callable[[], UnitState],
    timeout_seconds: float,
    max_restarts: int,
) -> Ready:
    """Go through stages, which yield their names, and in the end what the engine has resolved."""
    start = time.monotonic()
    restarts_before = look_at_unit().restarts  # those of a year in service are not a crash loop
    while True:
        stage = "unit"
        try:
            _check_unit(look_at_unit(), restarts_before, max_restarts)
            for reached in stages():
                if not isinstance(reached, str):
                    return Ready(time.monotonic() - start, dict(reached))
                stage = reached
        except RefusedError as error:
            raise NotReadyError(stage, str(error)) from error
        except ApiError as error:
            if time.monotonic() - start >= timeout_seconds:
                raise NotReadyError(stage, f"still not after {timeout_seconds:g} s: {error}") from error
        time.sleep(POLL_SECONDS)


def wait_until_idle(client: OpenAiClient, timeout_seconds: float) -> float:
    """Wait until the engine has no request left; returns the seconds that it took.

    It must say so twice in a row: between two steps of its scheduler a request may be in neither count.

    :raises BusyError: the time is up.
    """
    start = time.monotonic()
    quiet = 0
    while True:
        requests, reason = _requests(client)
        quiet = quiet + 1 if requests == 0 else 0
        waited = time.monotonic() - start
        if quiet == 2:
            return waited
        if not quiet and waited >= timeout_seconds:
            raise BusyError(requests, f"after {timeout_seconds:g} s {reason}")
        time.sleep(POLL_SECONDS)


def _requests(client: OpenAiClient) -> tuple[int | None, str]:
    """How many requests the engine has (None: it does not tell), and the same in words."""
    try:
        requests = parse_requests(client.text("/metrics"))
    except ApiError as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            return 0, "nothing listens there"
        return None, f"it is not known how many requests are left: {error}"
    if requests is None:
        return None, "it is not known how many requests are left: /metrics does not tell"
    return requests, "1 request still runs or waits" if requests == 1 else f"{requests} requests still run or wait"


def _check_unit(unit: UnitState, restarts_before: int, max_restarts: int) -> None:
    """Raise ApiError while the unit is not active yet, NotReadyError when it will not become so."""
    if not unit.loaded:
        raise NotReadyError("unit", "systemd knows no such unit")
    if unit.active in ("failed", "inactive") and not unit.queued:
        raise NotReadyError("unit", f"it is {unit.active} (result: {unit.result})")
    restarts = unit.restarts - restarts_before
    if restarts > max_restarts:
        raise NotReadyError("unit", f"it restarts in a loop: {restarts} times so far (last result: {unit.result})")
    if unit.active != "active":
        raise ApiError(f"the unit is {unit.active} (last result: {unit.result})")


def _check_health(client: OpenAiClient) -> None:
    status = client.status("/health")
    if status != 200:
        raise ApiError(f"/health answers HTTP {status}")


def _listed(client: OpenAiClient, model: str) -> Mapping[str, Any]:
    models = client.models()
    if model not in models:
        raise ApiError(f"/v1/models lists {', '.join(sorted(models)) or 'nothing'}, not {model!r}")
    return models[model]


def _effective(entry: Mapping[str, Any], metrics: str) -> dict[str, Any]:
    labels = parse_cache_config(metrics)
    values = {"max_model_len": entry.get("max_model_len"), **{name: _number(labels.get(name)) for name in NUMBERS}}
    return {name: value for name, value in values.items() if value is not None}


def _number(text: str | None) -> float | None:
    """VLLM writes None for what it does not know."""
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    return value if isinstance(value, (int, float)) else None
