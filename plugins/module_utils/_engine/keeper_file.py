"""The file that the keeper of one node is started from (roles/vllm/files/keeper.py); pure, private to the collection.

The keeper knows nothing of vLLM's options, of Docker or of Ray: start.py says what starts an engine, and this what asks
it for a token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .probe import canary
from .start import Start

__all__ = ["KILLED_AFTER", "keeper_file"]

KILLED_AFTER = 10  # seconds: vLLM ends its engine at its own limit, and then waits for clients that do not hang up
# Options that one node has and another has not, or with another value (_planner/launch.py).
OWN = frozenset(("api-server-count", "headless", "host", "node-rank", "port"))


def keeper_file(instance: Mapping[str, Any], *, start: Start, directory: str, times: Mapping[str, int]) -> str:
    """The text of the file.

    :param instance: a record of launch.
    :param start: what starts it.
    :param directory: where the other files of the instance lie.
    :param times: ``shutdown`` (that requests in flight get), ``dead``, ``hang`` and ``start``, in seconds.
    """
    name, node, endpoint = instance["id"], instance["node"], instance["endpoint"]
    alone = {"head": endpoint["address"], "port": 0, "rank": node["rank"], "nodes": 1}
    keeper = instance.get("keeper") or alone
    answers = node["rank"] == 0
    record = {
        "id": name,
        **{key: keeper[key] for key in ("rank", "nodes", "head", "port")},
        "address": node.get("address", endpoint["address"]),
        "agree": agreement(instance["engine_args"], start.release),
        "command": start.command,
        "arguments_file": f"{directory}/{name}.arguments.json" if answers else None,  # the API server's
        "cleanup": start.cleanup,
        "url": f"http://{_host(endpoint['address'])}:{endpoint['port']}" if answers else None,
        "canary": canary(instance.get("task", "generate"), instance["model"]) if answers else None,
        "dead": times["dead"],
        "hang": times["hang"],
        "start_timeout": times["start"],
        "drain": times["shutdown"] + KILLED_AFTER,
        # Ray's driver replaces the handler of SIGTERM by which vLLM's engine core would finish its requests.
        "idle_first": bool(instance.get("ray")),
    }
    return json.dumps(record, indent=2) + "\n"


def agreement(engine_args: Mapping[str, Any], release: str) -> str:
    """A digest of what must be the same on all nodes of an instance."""
    shared = {name: value for name, value in engine_args.items() if name not in OWN}
    return hashlib.sha256(json.dumps([release, shared], sort_keys=True).encode()).hexdigest()


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
