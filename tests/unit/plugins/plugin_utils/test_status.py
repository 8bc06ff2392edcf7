"""The picture of the fleet, from what hosts told: drained, down, missing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.action import fleet_status
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.present import QUERIES
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.status import overview
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.status_table import WIDTH, table

from tests.unit.plugins.conftest import RunAction

NOW = 1_800_000_000.0
ADDRESSES = {"gpu1": "10.0.0.1", "gpu2": "10.0.0.2", "lb1": "10.0.0.3", "mon1": "10.0.0.4"}
AWAY = {"unreached": "Failed to connect to the host via ssh: No route to host"}
HIDDEN = {"state": None, "waits_for": "", "epoch": 0}


def engine(name: str, **more: Any) -> dict[str, Any]:
    keeper = {"state": "serving", "waits_for": "", "epoch": (NOW - 600) * 1000}
    told = {"problem": None, "running": 3.0, "waiting": 1.0, "kv_cache_usage": 0.25}
    return {"id": name, "model": "llama", "port": 8000, "rank": 0, "keeper": keeper, **told, **more}


def look(*engines: dict[str, Any], **more: Any) -> dict[str, Any]:
    changes = {"path": "/etc/ansible/facts.d/gpuhosts_vllm.fact", "changed_epoch": NOW - 7200, "run_epoch": NOW - 60}
    nothing: dict[str, Any] = {
        "front_door": None,
        "prometheus": None,
        "silenced": [],
        "changes": changes,
        "problems": [],
    }
    return {"engines": list(engines), **nothing, **more}


def door(**drained: str | None) -> dict[str, Any]:
    addresses = {"llama_1": "10.0.0.1:8000", "llama_2": "10.0.0.2:8000"}
    servers = [
        {"address": addresses[name], "id": name.replace("_", "-"), "model": "llama", "drained": by}
        for name, by in drained.items()
    ]
    return look(front_door={"servers": servers, "connections": 7})


def sample(value: str, **labels: str) -> dict[str, Any]:
    return {"labels": labels, "value": value}


def prometheus(**found: Any) -> dict[str, Any]:
    usual = {
        "ttft_p95_seconds": [sample("0.125", model="llama")],
        "gpus": [sample("2", host="gpu1"), sample("2", host="gpu2")],
        "celsius": [sample("41", host="gpu1"), sample("77", host="gpu2")],
        "xid": [sample("0", host="gpu1", gpu="0"), sample("0", host="gpu2", gpu="0")],
        "alerts": [],
    }
    return look(prometheus={**dict.fromkeys(QUERIES, ()), **usual, **found})


def fleet(**looks: dict[str, Any] | None) -> dict[str, Any]:
    """The picture of a fleet that is well but for these hosts; None: the host was not asked."""
    well = {
        "gpu1": look(engine("llama-1")),
        "gpu2": look(engine("llama-2")),
        "lb1": door(llama_1=None, llama_2=None),
        "mon1": prometheus(),
    }
    asked = {name: copy.deepcopy(one) for name, one in {**well, **looks}.items() if one}
    return overview(asked, ADDRESSES, ["mon1"], NOW)


def states(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {instance["id"]: (instance["state"], instance["reason"]) for instance in status["instances"]}


def test_a_fleet_that_is_well() -> None:
    status = fleet()
    assert status["summary"] == "1 model, 2 instances: 2 up; 0 alerts firing"
    (model,) = status["models"]
    assert (model["up"], model["running"], model["waiting"], model["kv_cache_usage"]) == (2, 6, 2, 0.25)
    assert (model["ttft_p95_seconds"], model["idle"]) == (0.125, False)
    assert states(status) == {"llama-1": ("up", ""), "llama-2": ("up", "")}
    assert status["front_doors"] == [{"host": "lb1", "connections": 7}]
    assert [host["celsius"] for host in status["hosts"]] == [41, 77, None, None]
    assert [host["gpu_errors"] for host in status["hosts"]] == [[], [], None, None]
    assert status["notes"] == []


def test_the_screen() -> None:
    assert table(fleet(), NOW) == [
        "1 model, 2 instances: 2 up; 0 alerts firing",
        "",
        "MODEL  UP   RUN  WAIT  KV     TTFT P95",
        "llama  2/2  6    2     25.0%  0.125 s",
        "",
        "INSTANCE  HOSTS  STATE  FOR     RUN  WAIT  KV",
        "llama-1   gpu1   up     10 min  3    1     25.0%",
        "llama-2   gpu2   up     10 min  3    1     25.0%",
        "",
        "HOST  GPUS  HOTTEST  GPU ERRORS  CHANGED  LAST RUN",
        "gpu1  2     41 C     none        2 h      60 s",
        "gpu2  2     77 C     none        2 h      60 s",
        "lb1   -     -        -           2 h      60 s",
        "mon1  -     -        -           2 h      60 s",
        "",
        "front door lb1: 7 connections",
        "last change: 2 h ago on gpu1, /etc/ansible/facts.d/gpuhosts_vllm.fact",
    ]


@pytest.mark.parametrize(
    ("keeper", "reason"),
    [
        ({"state": None, "waits_for": "", "epoch": 0}, "stopped"),
        ({"state": "starting", "waits_for": "", "epoch": 5}, "starting"),
        ({"state": "waiting", "waits_for": "rank 1", "epoch": 0}, "waits for rank 1"),
    ],
)
def test_an_engine_that_does_not_serve_is_down(keeper: dict[str, Any], reason: str) -> None:
    silent = {"problem": "refused", "running": None, "waiting": None, "kv_cache_usage": None}
    status = fleet(gpu2=look(engine("llama-2", keeper=keeper, **silent)))
    assert states(status)["llama-2"] == ("down", reason)
    assert status["models"][0]["running"] == 3
    assert "llama  1/2  3    1     25.0%  0.125 s" in table(status, NOW)


def test_an_engine_whose_keeper_is_content_and_that_does_not_answer_is_down() -> None:
    status = fleet(gpu1=look(engine("llama-1", problem="GET /metrics of 10.0.0.1:8000: timed out", running=None)))
    assert states(status)["llama-1"] == ("down", "GET /metrics of 10.0.0.1:8000: timed out")


def test_an_engine_without_a_keeper_is_judged_by_its_answer() -> None:
    status = fleet(gpu1=look(engine("llama-1", keeper=None)))
    assert states(status)["llama-1"] == ("up", "")
    assert status["instances"][0]["since"] is None


@pytest.mark.parametrize(
    ("by", "words"), [("operator", "drained by an operator"), ("maintenance", "drained for maintenance")]
)
def test_a_drained_server(by: str, words: str) -> None:
    status = fleet(lb1=door(llama_1=None, llama_2=by))
    assert states(status) == {"llama-1": ("up", ""), "llama-2": ("drained", words)}
    assert status["summary"] == "1 model, 2 instances: 1 up, 1 drained; 0 alerts firing"
    assert f"llama-2: {words}" in table(status, NOW)


def test_a_server_that_is_drained_and_down_is_down() -> None:
    gone = look(engine("llama-2", keeper=HIDDEN))
    status = fleet(gpu2=gone, lb1=door(llama_1=None, llama_2="maintenance"))
    assert states(status)["llama-2"] == ("down", "stopped, drained for maintenance")


def test_one_of_two_front_doors_has_drained_it() -> None:
    looks = {"gpu1": look(engine("llama-1")), "lb1": door(llama_1="operator"), "lb2": door(llama_1=None)}
    assert states(overview(looks, ADDRESSES, [], NOW)) == {"llama-1": ("up", "drained by an operator at lb1")}


def test_an_instance_that_no_front_door_knows() -> None:
    assert states(fleet(lb1=door(llama_1=None)))["llama-2"] == ("up", "not a server of the front door lb1")


def test_a_host_that_is_away_and_what_the_front_door_says_of_it() -> None:
    status = fleet(gpu2=AWAY)
    assert states(status)["llama-2"] == ("down", "gpu2 does not answer")
    assert status["instances"][1]["hosts"] == ["gpu2"]
    assert status["notes"] == ["gpu2 cannot be reached: Failed to connect to the host via ssh: No route to host"]
    assert "gpu2  2     77 C     none        no answer  -" in table(status, NOW)


def test_a_host_whose_module_did_not_run() -> None:
    status = fleet(mon1={"unread": "no Python"})
    assert status["notes"] == [
        "mon1 could not be read: no Python",
        "no answer of Prometheus (mon1): TTFT, GPUs and alerts are not known",
    ]
    assert status["summary"].endswith("alerts not known")


def test_a_part_of_the_fleet() -> None:
    status = fleet(gpu2=None, lb1=None, mon1=None)
    assert states(status) == {"llama-1": ("up", "")}
    assert status["notes"][0] == "not asked: gpu2, lb1, mon1"


def test_the_front_door_alone() -> None:
    status = fleet(gpu1=None, gpu2=None, mon1=None)
    assert set(states(status).values()) == {("unknown", "gpu1 was not asked"), ("unknown", "gpu2 was not asked")}
    assert status["summary"] == "1 model, 2 instances: 0 up, 2 unknown; alerts not known"


def test_a_server_whose_host_has_nothing_of_it_or_is_none() -> None:
    assert states(fleet(gpu2=look()))["llama-2"] == ("down", "gpu2 has no such instance")
    stranger = overview({"lb1": door(llama_1=None)}, {}, [], NOW)
    assert states(stranger)["llama-1"] == ("down", "no host of the inventory has the address 10.0.0.1")


def test_an_instance_over_two_hosts() -> None:
    worker = engine("llama-1", rank=1)
    looks = {"gpu0": look(worker), "gpu1": look(engine("llama-1"))}
    (instance,) = overview(looks, ADDRESSES, [], NOW)["instances"]
    assert (instance["hosts"], instance["state"], instance["running"]) == (["gpu0", "gpu1"], "up", 3)
    (instance,) = overview({"gpu0": look(worker)}, ADDRESSES, [], NOW)["instances"]
    assert (instance["state"], instance["reason"]) == (
        "unknown",
        "the host with its API was not asked, or does not answer",
    )


def test_a_fleet_without_prometheus() -> None:
    status = overview({"gpu1": look(engine("llama-1"))}, {"gpu1": "10.0.0.1"}, [], NOW)
    assert status["notes"] == ["the fleet has no Prometheus: TTFT, GPUs and alerts are not known"]
    assert "llama  1/1  3    1     25.0%  -" in table(status, NOW)


def test_a_prometheus_without_these_metrics() -> None:
    status = fleet(mon1=prometheus(ttft_p95_seconds=[], xid=[]))
    assert status["notes"] == ["Prometheus of mon1 has no model:ttft_seconds:p95, DCGM_FI_DEV_XID_ERRORS"]
    assert "gpu1  2     41 C     -           2 h      60 s" in table(status, NOW)


def test_nobody_asked_anything_for_five_minutes() -> None:
    status = fleet(mon1=prometheus(ttft_p95_seconds=[sample("NaN", model="llama")]))
    assert (status["models"][0]["ttft_p95_seconds"], status["models"][0]["idle"]) == (None, True)
    assert "llama  2/2  6    2     25.0%  no requests" in table(status, NOW)


def test_errors_of_gpus() -> None:
    status = fleet(
        mon1=prometheus(
            xid=[sample("0", host="gpu1", gpu="0"), sample("79", host="gpu1", gpu="1")],
            uncorrected=[sample("3", host="gpu1", gpu="0")],
            remap_failed=[sample("1", host="gpu1", gpu="0")],
            lost=[sample("0", host="gpu1"), sample("2", host="gpu2")],
        )
    )
    errors = ["GPU 1: XID 79", "GPU 0: 3 uncorrected ECC", "GPU 0: row remap failed"]
    assert [host["gpu_errors"] for host in status["hosts"]] == [errors, ["2 lost"], None, None]
    assert "gpu1: GPU 1: XID 79, GPU 0: 3 uncorrected ECC, GPU 0: row remap failed" in table(status, NOW)


def test_alerts_the_urgent_ones_first_and_the_silenced_ones_last() -> None:
    def alert(name: str, severity: str) -> dict[str, Any]:
        labels = {"alertname": name, "severity": severity, "host": "gpu1"}
        return {"labels": labels, "annotations": {"summary": f"{name}!"}, "activeAt": "2027-01-15T07:55:00.123456789Z"}

    alerts = [alert("GpuHot", "ticket"), alert("EngineDown", "page"), alert("HostDown", "page")]
    quiet = [{"alertname": "HostDown", "severity": "page", "host": "gpu1", "cluster": "one"}]
    status = fleet(mon1=prometheus(alerts=alerts) | {"silenced": quiet})
    assert [(one["name"], one["silenced"]) for one in status["alerts"]] == [
        ("EngineDown", False),
        ("GpuHot", False),
        ("HostDown", True),
    ]
    assert status["summary"].endswith("2 alerts firing")
    assert "ALERT EngineDown (page, 5 min): EngineDown!" in table(status, NOW)
    assert "ALERT HostDown (page, silenced, 5 min): HostDown!" in table(status, NOW)


def test_the_youngest_change_of_all() -> None:
    younger = {"path": "/etc/nginx/nginx.conf", "changed_epoch": NOW - 30, "run_epoch": None}
    status = fleet(lb1=door(llama_1=None, llama_2=None) | {"changes": younger})
    assert status["last_change"] == {
        "host": "lb1",
        "changed": "2027-01-15T07:59:30Z",
        "changed_file": "/etc/nginx/nginx.conf",
    }


def test_nothing_was_ever_put_anywhere() -> None:
    nothing = {"path": None, "changed_epoch": None, "run_epoch": None}
    status = overview({"gpu1": look(changes=nothing)}, {"gpu1": "10.0.0.1"}, [], NOW)
    assert (status["summary"], status["last_change"]) == ("0 models, 0 instances: 0 up; alerts not known", None)
    assert "gpu1  -     -        -           -        -" in table(status, NOW)


def test_no_line_is_folded_by_ansible_and_long_words_stay_whole() -> None:
    status = fleet(gpu2={"unreached": "word " * 60})
    assert max(map(len, table(status, NOW))) <= WIDTH


def test_the_action(run_action: RunAction) -> None:
    result = run_action(fleet_status, looks={"gpu1": look(engine("llama-1"))}, addresses={"gpu1": "10.0.0.1"})
    assert not result["changed"]
    assert result["table"][0] == result["status"]["summary"] == "1 model, 1 instance: 1 up; alerts not known"
