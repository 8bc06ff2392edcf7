"""What a plan does to instances that run now: which it stops, moves, shrinks or restarts, and why; pure, private."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._wishes.read import Wish
from .hosts import Host, Running
from .text import ranges

__all__ = ["changes"]

Gpus = frozenset[tuple[str, int]]


def changes(
    hosts: Sequence[Host], instances: Sequence[Mapping[str, Any]], wishes: Sequence[Wish]
) -> list[dict[str, Any]]:
    """Rows of the plan's key of that name, by instance.

    ``last`` tells that its model has no instance after it. What runs as before is not in it.
    """
    running: dict[str, list[tuple[str, Running]]] = defaultdict(list)
    for host in hosts:
        for record in host.running:
            running[record.id].append((host.name, record))
    planned = {str(instance["id"]): instance for instance in instances}
    wished = {wish.name: wish for wish in wishes}
    serving = {str(instance["model"]) for instance in instances}
    rows = []
    for name in sorted(running):
        nodes = sorted(running[name], key=lambda node: node[1].rank)
        model = nodes[0][1].model
        told = _change(nodes, planned.get(name), wished.get(model), instances)
        if told:
            action, reason = told
            last = action == "stopped" and model not in serving
            rows.append({"instance": name, "model": model, "action": action, "reason": reason, "last": last})
    return rows


def _change(
    nodes: Sequence[tuple[str, Running]],
    planned: Mapping[str, Any] | None,
    wish: Wish | None,
    instances: Sequence[Mapping[str, Any]],
) -> tuple[str, str] | None:
    """What happens to an instance, and why; None: nothing."""
    head = nodes[0][1]
    before = frozenset((host, index) for host, record in nodes for index in record.gpu_indices)
    gone = [f"{host}: {', '.join(record.gone)}" for host, record in nodes if record.gone]
    if wish is None:
        return "stopped", f"{head.model} is not in vllm_models any more"
    if planned is None or planned["model"] != head.model:
        here = sum(instance["model"] == head.model for instance in instances)
        enough = not gone and wish.replicas is not None and here >= wish.replicas
        reason = f"{wish.where}.replicas is {wish.replicas}" if enough else ""
        return "stopped", reason or _reason(before, gone, head, None, instances)
    after = _gpus(planned)
    if gone or before != after:
        fewer = len(after) < sum(record.gpu_count for _, record in nodes)
        where = "; ".join(
            f"{node['host']} GPU {','.join(ranges(sorted(gpu['index'] for gpu in node['gpus'])))}"
            for node in planned["nodes"]
        )
        return ("shrunk" if fewer else "moved"), f"to {where}: {_reason(before, gone, head, planned, instances)}"
    length = planned["engine_args"].get("max-model-len")
    if head.context_length and length and length != head.context_length:
        action = "shrunk" if length < head.context_length else "restarted"
        return action, f"its context_length is {length}, and was {head.context_length}"
    port = planned["endpoint"]["port"]
    return None if port == head.port else ("restarted", f"its port is {port}, and was {head.port}")


def _gpus(instance: Mapping[str, Any]) -> Gpus:
    return frozenset((node["host"], gpu["index"]) for node in instance["nodes"] for gpu in node["gpus"])


def _reason(
    before: Gpus,
    gone: Sequence[str],
    head: Running,
    planned: Mapping[str, Any] | None,
    instances: Sequence[Mapping[str, Any]],
) -> str:
    """Why an instance cannot stay where it is."""
    if gone:
        return f"{'; '.join(gone)} is not there any more"
    own = [instance for instance in instances if instance["model"] == head.model]
    shape = (planned or (own[0] if own else {})).get("parallelism")
    if shape and head.tensor and shape["tensor"] != head.tensor:
        return f"its model has tensor {shape['tensor']} now, and had {head.tensor}"
    others = sorted(_takers(before, head.id, instances))
    if others:
        return f"it makes room for {', '.join(others)}"
    return "its place does not suit its model any more"


def _takers(before: Gpus, name: str, instances: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Instances that have GPUs of another now."""
    return (str(other["id"]) for other in instances if other["id"] != name and not before.isdisjoint(_gpus(other)))
