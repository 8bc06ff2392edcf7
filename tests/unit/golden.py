"""Fleets whose whole plan is stored: what is planned for the hardware that people have, to be read and compared.

:data:`FLEETS` are stored as texts for people, :data:`SAMPLES` as plans and hosts in JSON, from which the report is
tested. A change of the planner that is meant shows as a change of these files, once they are written anew:
``PYTHONPATH=collections python -m tests.unit.golden``
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launch
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.table import format_table

from tests.unit.fleets import A100, GB200, H100, L40S, RTX4090, T4, host, plan

TEXTS = Path(__file__).parent / "fixtures/fleets"
PLANS = Path(__file__).parent / "fixtures/plans"


def mixed(name: str) -> dict[str, Any]:
    """A host with two H100 below two L40S."""
    one, other = host(name, 4, H100), host(name, 4, L40S)
    facts = one["gpu_facts"]
    facts["gpus"][2:] = other["gpu_facts"]["gpus"][2:]
    facts["domains"] = [[0, 1], [2], [3]]
    return one


def sliced(name: str) -> dict[str, Any]:
    """A host with two H100, of which one is in MIG mode."""
    one = host(name, 2)
    one["gpu_facts"]["gpus"][1]["mig_enabled"] = True
    return one


MODELS: dict[str, dict[str, Any]] = {
    "8b": {"name": "llama-3.1-8b-instruct"},
    "70b": {"name": "llama-3.3-70b-instruct"},
    "1b": {"name": "llama-3.2-1b-instruct"},
    "moe": {"name": "qwen3-30b-a3b"},
    "fp8": {"name": "qwen3-235b-a22b-fp8"},
    "405b": {"name": "llama-3.1-405b-instruct"},
    "v3": {"name": "deepseek-v3"},
}
# What is wished, on which hosts.
FLEETS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "dgx-h100": ([MODELS["70b"] | {"replicas": 1}, MODELS["8b"]], [host("gpu1")]),
    "dgx-h100-latency": ([MODELS["70b"] | {"objective": "latency"}], [host("gpu1")]),
    "hgx-a100": ([MODELS["fp8"] | {"replicas": 1}, MODELS["moe"]], [host("gpu1", 8, A100)]),
    "8x-l40s-pcie": ([MODELS["70b"] | {"replicas": 1}, MODELS["8b"]], [host("gpu1", 8, L40S, ecc_enabled=False)]),
    "4x-rtx-4090": ([MODELS["8b"] | {"concurrency": 4}], [host("gpu1", 4, RTX4090)]),
    "mixed": ([MODELS["8b"]], [host("gpu1", 2), host("gpu2", 2, L40S), mixed("gpu3"), host("gpu4", 1, T4)]),
    "2x-hgx-h100": ([MODELS["v3"]], [host("gpu1"), host("gpu2")]),
    "5x-hgx-mixed": (
        [MODELS["405b"] | {"objective": "latency", "replicas": 1}, MODELS["70b"]],
        [host("gpu1", 8, A100), host("gpu2"), host("gpu3", 8, A100), host("gpu4", 8, L40S), host("gpu5", 4)],
    ),
    "one-hgx-h100-too-small": ([MODELS["v3"]], [host("gpu1")]),
    "mig": ([MODELS["8b"]], [sliced("gpu1")]),
    "gb200": ([MODELS["fp8"] | {"replicas": 1}, MODELS["70b"]], [host("gpu1", 4, GB200), host("gpu2", 4, GB200)]),
    "one-t4": ([MODELS["1b"]], [host("gpu1", 1, T4)]),
    "one-t4-too-small": ([MODELS["8b"]], [host("gpu1", 1, T4)]),
    "an-empty-host": ([MODELS["8b"]], [host("gpu1", 0), host("gpu2", 1)]),
    "only-an-empty-host": ([MODELS["8b"]], [host("gpu1", 0)]),
}


def plan_of(name: str) -> dict[str, Any] | None:
    """The plan of a fleet; None if it is refused."""
    models, hosts = copy.deepcopy(FLEETS[name])
    try:
        return plan(models, *hosts)
    except PlacementError:
        return None


def shown(name: str) -> str:
    """The plan of a fleet, or its refusal, with everything that was decided."""
    models, hosts = copy.deepcopy(FLEETS[name])
    try:
        made = plan(models, *hosts)
    except PlacementError as error:
        return f"refused:\n{error}\n"
    lines = [format_table(made)]
    told: list[Any] = []
    for instance in made["instances"]:
        launches = [launch(instance, node) for node in instance["nodes"]]
        head, *workers = (record["engine_args"] for record in launches)
        # What only one node is told is shown below; a single node has the address and port that the table shows.
        own = {"host", "port", "headless", "node-rank"}
        arguments = {name: value for name, value in head.items() if name not in own}
        why = [reason for reason in instance["why"] if not reason.startswith("GPUs ")]
        same = [arguments, instance["budget"], why]
        if same not in told:  # replicas on the same kind of GPU are alike
            told.append(same)
            lines += ["", instance["id"], *(f"  {key}: {value}" for key, value in arguments.items())]
            lines += [f"  {key}: {_text(value)}" for key, value in instance["budget"].items() if key != "conditions"]
            lines += [
                "  node {rank} on {host}, {role}: ".format_map(record["node"]) + _told(record, own)
                for record in launches
                if workers
            ]
            lines += [f"  why {reason}" for reason in why]
    lines += ["", *(f"wave {number}: {', '.join(wave)}" for number, wave in enumerate(made["rollout"], 1))]
    for row in made["rejected"]:
        lines += ["", f"rejected {row['model']}: {row['shape']}: {row['reason']} {row['knob']}"]
    return "\n".join(lines) + "\n"


def _told(record: dict[str, Any], own: set[str]) -> str:
    """What only this node is told."""
    arguments = {name: value for name, value in record["engine_args"].items() if name in own}
    return _text(arguments | {name: value for name, value in record["env"].items() if name != "CUDA_DEVICE_ORDER"})


def _text(value: Any) -> str:
    return ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else str(value)


# Plans that show everything the report has to show: what is wished, on which hosts, and which instances are known to
# have kept their promise. A model with ``config`` None is of an architecture that nobody knows.
RACK = [host(f"rack7-l40s-{number}.dc2.example.net", 2, L40S) for number in (1, 2)]
SAMPLES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]]] = {
    "hgx-h100": (
        [
            {"name": "llama-3.3-70b", "config": "llama-3.3-70b-instruct", "replicas": 1},
            {"name": "qwen3-8b", "concurrency": 4},
        ],
        [host("gpu1")],
        {"llama-3.3-70b-1", "qwen3-8b-1"},
    ),
    "l40s-pcie": (
        [
            {"name": "llama-3.3-70b", "config": "llama-3.3-70b-instruct", "replicas": 1},
            {"name": "qwen3-8b", "replicas": 1},
        ],
        [*RACK, host("rack7-4090-1.dc2.example.net", 2, RTX4090)],
        {"qwen3-8b-1"},
    ),
    "warnings": (
        [{"name": "phi-custom", "config": None, "parallelism": {"tensor": 1}, "replicas": 2}],
        [host("gpu1", 3, T4, ecc_enabled=False), sliced("gpu2"), host("gpu3", 0)],
        set(),
    ),
}
SAMPLES["warnings"][1][0]["gpu_facts"]["gpus"][1]["processes"] = [{"pid": 4711, "used_gib": 3.2}]
SAMPLES["warnings"][1][0]["gpu_facts"]["gpus"][2] = {"index": 2, "lost": True}


def sampled(name: str) -> dict[str, Any]:
    """A plan with its hosts; some instances report what they have, which is what was promised."""
    models, hosts, measured = copy.deepcopy(SAMPLES[name])
    made = plan(models, *hosts)
    for instance in made["instances"]:
        if instance["id"] in measured:
            promise = instance["budget"]["pinned"]
            instance["effective"] = {
                "kv_cache_size_tokens": promise["kv_cache_tokens"],
                "kv_cache_max_concurrency": promise["max_concurrency"],
                "max_model_len": instance["engine_args"]["max-model-len"],
            }
    return {"plan": made, "hosts": hosts}


def stored() -> dict[Path, str]:
    """Every stored file by its path, as it is to be."""
    texts = {TEXTS / f"{name}.txt": shown(name) for name in FLEETS}
    return texts | {PLANS / f"{name}.json": json.dumps(sampled(name), indent=1) + "\n" for name in SAMPLES}


if __name__ == "__main__":
    for path, text in stored().items():
        path.write_text(text, encoding="utf-8")
