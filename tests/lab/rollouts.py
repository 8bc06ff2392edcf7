"""Roll-outs of a change in the lab's one model, and what shows whether an engine was restarted."""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from .clients import Client, drained
from .conftest import ROOT, Run, machine, playbook

HOSTS = ("gpu1", "gpu2")
NOTICE = "/etc/ansible/facts.d/gpuhosts_maintenance.fact"


def model(extra_args: Mapping[str, object], env: Mapping[str, str]) -> dict[str, object]:
    """The lab's model with more options and environment variables."""
    (one,) = yaml.safe_load((ROOT / "inventories/lab/group_vars/gpu_hosts/vllm.yml").read_text())["vllm_models"]
    return {**one, "extra_args": one["extra_args"] | extra_args, "env": one["env"] | env}


SERVED_ADAPTER = {"name": "tiny-adapter", "source": "/srv/models/tiny-adapter"}


def adapted(*adapters: Mapping[str, str]) -> dict[str, object]:
    """The lab's model with adapters; the engines take some even where none is listed."""
    return {**model({"enable-lora": True, "max-loras": 4}, {}), "lora": list(adapters)}


def variables(values: Mapping[str, object]) -> tuple[str, str]:
    """Variables for a command line."""
    return "-e", json.dumps(values)


def with_adapter(*arguments: str) -> Run:
    """site.yml with the first adapter of the model, for which the engines have to restart."""
    return playbook("playbooks/site.yml", *variables({"vllm_models": [adapted(SERVED_ADAPTER)]}), *arguments)


def rollout(extra_args: Mapping[str, object], *arguments: str) -> Run:
    """site.yml with further options of the engines."""
    return playbook("playbooks/site.yml", *variables({"vllm_models": [model(extra_args, {})]}), *arguments)


def started(host: str) -> str:
    """When a host's engine of the lab's model was started, and its process."""
    (unit,) = machine(host).check_output("systemctl list-units --plain --no-legend 'vllm@tiny-llama-*'").split()[:1]
    return str(machine(host).check_output("systemctl show --property=MainPID,ActiveEnterTimestamp %s", unit))


def assert_rolled_out(run: Run, streams: Client, before: list[str]) -> None:
    """Every engine was restarted, the front door is open to all of them, and no client noticed."""
    assert run.code == 0
    print(f"{streams.answers} answers, {len(streams.failures)} failures, {run.seconds:.0f} s")
    assert streams.failures == []
    assert streams.answers > 0
    assert all(now != then for now, then in zip([started(host) for host in HOSTS], before, strict=True))
    assert drained() == set()
