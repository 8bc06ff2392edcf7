"""What systemd says of the unit of an engine, and what the engine itself answers; private to the collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._errors import ApiError, NotReadyError
from .._host.system import read_text
from .openai import QUESTION, OpenAiClient
from .ready import UnitState, boot_of, wait_until_ready, wait_until_served

__all__ = ["answer_of", "answers_at_once", "look_at_unit"]

REQUEST_SECONDS = 60  # of one request; a server that hangs is asked again until the time is up
ONCE_SECONDS = 10  # the same where nobody waits for an engine

Run = Callable[[list[str]], str]  # runs a command; what it prints, or the end of the module


def boot_time() -> float:
    """When the clock was zero that systemd's monotonic timestamps go by, in seconds since 1970."""
    return time.time() - time.monotonic()


def look_at_unit(run: Run, unit: str) -> UnitState:
    """What systemd says of a unit."""
    command = ["systemctl", "show", unit, "--property=LoadState,ActiveState,Result,NRestarts,Job"]
    return UnitState.from_properties(run(command))


def answer_of(run: Run, client: OpenAiClient | None, question: Mapping[str, Any], span: int) -> dict[str, Any]:
    """Wait until an engine answers, or its keeper says that it does; what the module engine_ready tells of that.

    :param client: of its API; None on a node that has none.
    :param question: arguments of the module engine_ready.
    :param span: seconds of its journal since its start in which it tells what boot it is.
    :raises NotReadyError: the unit has failed or restarts in a loop, the API key is wrong, or the time is up.
    """
    unit = question["unit"]
    limits = {"timeout_seconds": question["timeout"], "max_restarts": question["max_restarts"]}
    if client is None:
        metrics = Path(question["keeper_metrics"])
        ready = wait_until_served(lambda: read_text(metrics), lambda: look_at_unit(run, unit), **limits)
        return {"stage": "keeper", "seconds": round(ready.seconds, 1), "effective": {}}
    asked = {name: question[name] for name in ("task", "model", "prompt")}
    ready = wait_until_ready(client, lambda: look_at_unit(run, unit), **asked, **limits)
    effective = {**ready.effective, **_look_at_boot(run, unit, span)}
    return {"stage": "answer", "seconds": round(ready.seconds, 1), "effective": effective}


def _look_at_boot(run: Run, unit: str, span: int) -> dict[str, str]:
    # Not --timestamp=unix, which Ubuntu 22.04's systemctl does not know.
    command = ["systemctl", "show", unit, "--property=ActiveEnterTimestampMonotonic", "--value"]
    since = int(int(run(command) or 0) / 1e6 + boot_time())
    # What an engine that has served for months said after its start-up is of no interest.
    within = ["--since", f"@{since}", "--until", f"@{since + span}"]
    boot = boot_of(run(["journalctl", "-u", unit, *within, "--no-pager", "-o", "cat"]))
    return {"boot": boot} if boot else {}


def answers_at_once(run: Run, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What every instance of a host answers to one question, with its name as ``item``; [] unless all do.

    Nothing is waited for and nothing is changed: where one has to be waited for, or may have adapters to load, the
    module engine_ready is to ask.

    :param given: arguments of the module engine_config.
    """
    answers: list[dict[str, Any]] = []
    for instance in given["instances"]:
        if instance["engine_args"].get("enable-lora"):
            return []
        endpoint = instance["endpoint"]
        question = {
            "unit": f"vllm@{instance['id']}.service",
            "keeper_metrics": str(Path(given["runtime_directory"], instance["id"], "keeper.prom")),
            "model": instance["model"],
            "task": instance.get("task") or "generate",
            "prompt": QUESTION["prompt"]["default"],
            "timeout": 0,
            "max_restarts": 0,
        }
        url = f"http://{endpoint['address']}:{endpoint['port']}" if endpoint.get("host") == given["host"] else ""
        try:
            client = OpenAiClient(url, given["secrets"].get("VLLM_API_KEY", ""), ONCE_SECONDS) if url else None
            answer = answer_of(run, client, question, given["times"]["start"])
        except (ApiError, NotReadyError):
            return []
        answers.append({"item": {"id": instance["id"], "node": {"rank": instance["node"]["rank"]}}, **answer})
    return answers
