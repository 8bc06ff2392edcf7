"""Fleets and models that the planner is tried on: descriptions as gpu_facts and model_facts return them.

Models of which nothing is known are in unsized.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.configuration import local_fact
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.calibration import Calibration, Measurement
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launches_on
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

MODELS = Path(__file__).parent / "fixtures/models"

# name, total and reserved GiB as NVML tells them, compute capability, link
H100 = ("NVIDIA H100 80GB HBM3", 79.65, 0.55, "9.0", "nvlink")
A100 = ("NVIDIA A100-SXM4-80GB", 80.0, 0.61, "8.0", "nvlink")
L40S = ("NVIDIA L40S", 44.99, 0.55, "8.9", "pcie")
RTX4090 = ("NVIDIA GeForce RTX 4090", 23.99, 0.44, "8.9", "pcie")
T4 = ("Tesla T4", 15.0, 0.42, "7.5", "pcie")
GB200 = ("NVIDIA GB200", 185.0, 0.8, "10.0", "nvlink")

SMALL = {"name": "llama-3.1-8b-instruct"}
LARGE = {"name": "llama-3.3-70b-instruct"}

Kind = tuple[str, float, float, str, str]


def host(name: str, count: int = 8, kind: Kind = H100, driver: str = "580.95.05", **changes: Any) -> dict[str, Any]:
    """A host as fleet_plan takes it, with so many GPUs of a kind in one domain; ``changes`` are made to all of them."""
    title, total, reserved, capability, link = kind
    gpu = {"name": title, "total_gib": total, "reserved_gib": reserved, "compute_capability": capability, **changes}
    return {
        "name": name,
        "address": f"10.0.0.{''.join(filter(str.isdigit, name))}",
        "gpu_facts": {
            "driver_version": driver,
            "link": link,
            "domains": [list(range(count))] if count else [],
            "gpus": [{"index": index, "uuid": f"GPU-{name}-{index}", **gpu} for index in range(count)],
            "reason": None if count else "no NVIDIA driver is installed",
        },
    }


def facts(name: str) -> dict[str, Any]:
    """What model_facts returns for one of the recorded configurations, with nothing but its config.json."""
    config = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))["config"]
    return {"config": config, "tensors": [], "safetensors_bytes": None, "bytes_from": "none"}


def plan(
    models: list[dict[str, Any]],
    *hosts: dict[str, Any],
    version: str = "0.33.0",
    calibration: Sequence[Measurement] = (),
    **options: Any,
) -> dict[str, Any]:
    """A plan for models whose ``name`` is that of a recorded configuration; ``config`` names another, None for none."""
    configs = {model["name"]: model.pop("config", model["name"]) for model in models}
    known = {name: facts(config) for name, config in configs.items() if config}
    groups = {"all": [host["name"] for host in hosts]}
    wishes, _ = read_wishes([{"source": "owner/model", **model} for model in models], version, groups)
    sizer = Sizer(Accounts(known, version, Calibration(calibration)))
    return plan_fleet(wishes, [Host.from_dict(host) for host in hosts], sizer=sizer, **options)


def refusal(models: list[dict[str, Any]], *hosts: dict[str, Any]) -> PlacementError:
    """Why there is no plan for these."""
    with pytest.raises(PlacementError) as caught:
        plan(models, *hosts)
    return caught.value


def first(made: dict[str, Any]) -> dict[str, Any]:
    """The first instance of a plan."""
    return dict(made["instances"][0])


def shapes(made: dict[str, Any]) -> set[tuple[str, int, int]]:
    """Model, tensor and pipeline parallelism of the instances."""
    return {
        (instance["model"], instance["parallelism"]["tensor"], instance["parallelism"]["pipeline"])
        for instance in made["instances"]
    }


def indices(node: dict[str, Any]) -> list[int]:
    """The GPUs of one node of an instance."""
    return [gpu["index"] for gpu in node["gpus"]]


def carried_out(made: dict[str, Any], *hosts: dict[str, Any]) -> list[dict[str, Any]]:
    """The hosts as they are when a plan has been carried out: with what the role vllm writes into their local facts."""
    return [{**host, "instances": local_fact(launches_on(made, host["name"]))["instances"]} for host in hosts]
