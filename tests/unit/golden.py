"""Fleets whose whole plan is stored: what is planned for the hardware that people have, to be read and compared.

A change of the planner that is meant shows as a change of these texts, once they are written anew:
``PYTHONPATH=collections python -m tests.unit.golden``
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.table import format_table

from tests.unit.fleets import A100, GB200, H100, L40S, RTX4090, T4, host, plan

TEXTS = Path(__file__).parent / "fixtures/fleets"


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
        arguments = instance["engine_args"]
        why = [reason for reason in instance["why"] if not reason.startswith("GPUs ")]
        same = [arguments, instance["budget"], why]
        if same not in told:  # replicas on the same kind of GPU are alike
            told.append(same)
            lines += ["", instance["id"], *(f"  {key}: {value}" for key, value in arguments.items())]
            lines += [f"  {key}: {_text(value)}" for key, value in instance["budget"].items() if key != "conditions"]
            lines += [
                f"  node {node['rank']} on {node['host']}, {node['role']}: {_text(node['engine_args'] | node['env'])}"
                for node in instance["nodes"]
                if len(instance["nodes"]) > 1
            ]
            lines += [f"  why {reason}" for reason in why]
    for row in made["rejected"]:
        lines += ["", f"rejected {row['model']}: {row['shape']}: {row['reason']} {row['knob']}"]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else str(value)


if __name__ == "__main__":
    TEXTS.mkdir(exist_ok=True)
    for name in FLEETS:
        (TEXTS / f"{name}.txt").write_text(shown(name), encoding="utf-8")
