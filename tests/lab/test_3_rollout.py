"""Changed options under streams: wave by wave, no request fails, and a wave that fails is the last one."""

from __future__ import annotations

import json
import time

import yaml

from .clients import client, drained
from .conftest import ROOT, Run, machine, playbook

HOSTS = ("gpu1", "gpu2")
NOTICE = "/etc/ansible/facts.d/gpuhosts_maintenance.fact"


def rollout(*arguments: str, **engine_args: object) -> Run:
    """site.yml with further options of the engines."""
    (model,) = yaml.safe_load((ROOT / "inventories/lab/group_vars/gpu_hosts/vllm.yml").read_text())["vllm_models"]
    model["extra_args"] |= {name.replace("_", "-"): value for name, value in engine_args.items()}
    return playbook("playbooks/site.yml", "-e", json.dumps({"vllm_models": [model]}), *arguments)


def started(host: str) -> str:
    """When the engine of a host was started, and its process."""
    (unit,) = machine(host).check_output("systemctl list-units --plain --no-legend 'vllm@*'").split()[:1]
    return str(machine(host).check_output("systemctl show --property=MainPID,ActiveEnterTimestamp %s", unit))


def test_check_mode_tells_who_would_restart() -> None:
    before = [started(host) for host in HOSTS]
    run = rollout("--check", seed=7)
    assert run.code == 0
    for number, host in enumerate(HOSTS, 1):
        assert f"{host}: restart tiny-llama-{number}, start nothing, remove nothing" in run.text
    assert [started(host) for host in HOSTS] == before


def test_an_option_that_vllm_refuses_stops_nothing_that_serves() -> None:
    before = [started(host) for host in HOSTS]
    run = rollout(structured_outputs_config={"nonsense": 1})
    assert run.code != 0
    assert "argument --structured-outputs-config: " in run.text
    assert [started(host) for host in HOSTS] == before
    assert drained() == set()


def test_an_engine_that_crashes_ends_the_roll_out_with_the_other_one_serving() -> None:
    other = started("gpu2")

    with client() as streams:
        run = rollout(hf_config_path="/nowhere")
        before = streams.answers
        time.sleep(5)

    assert run.code != 0
    assert "the roll-out stops here; the other hosts go on serving" in run.text
    print(f"{streams.answers} answers, {len(streams.failures)} failures, {run.seconds:.0f} s")
    assert streams.failures == []
    assert streams.answers > before > 0
    assert started("gpu2") == other
    assert drained() == {"172.29.250.21"}
    assert machine("gpu1").file(NOTICE).exists


def test_the_next_run_brings_the_host_back() -> None:
    other = started("gpu2")

    run = rollout()

    assert run.code == 0
    assert started("gpu2") == other
    assert drained() == set()
    assert not machine("gpu1").file(NOTICE).exists


def test_a_changed_option_restarts_wave_by_wave_and_no_request_fails() -> None:
    before = [started(host) for host in HOSTS]

    with client() as streams:
        run = rollout(seed=7)

    assert run.code == 0
    print(f"{streams.answers} answers, {len(streams.failures)} failures, {run.seconds:.0f} s")
    assert streams.failures == []
    assert streams.answers > 0
    assert all(now != then for now, then in zip([started(host) for host in HOSTS], before, strict=True))
    assert drained() == set()
    assert not any(machine(host).file(NOTICE).exists for host in HOSTS)

    again = rollout(seed=7)
    assert (again.code, again.changed) == (0, {})
    # The engines keep this option: the tests after this one do not roll out, and do not mind.
