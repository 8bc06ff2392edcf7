"""Alerts about engines, and about instances over several hosts."""

from __future__ import annotations

from .case import Case

__all__ = ["CASES"]

_M = 'job="vllm",model="m",instance_id="m-1",instance="10.0.0.1:8000"'
_M2 = 'job="vllm",model="m",instance_id="m-2",instance="10.0.0.2:8000"'
_OTHER = 'job="vllm",model="other",instance_id="other-1",instance="10.0.0.3:8000"'
_OF_M = {"model": "m"}
_OF_M1 = {"model": "m", "instance_id": "m-1"}
_KEEPER = 'job="node",host="gpu1",instance="10.0.0.1:9100",id="m-1"'
_HERE = {"job": "node", "host": "gpu1", "instance": "10.0.0.1:9100", "id": "m-1"}


def _done(reason: str, labels: str = _M) -> str:
    return f'vllm:request_success_total{{{labels},engine="0",model_name="m",finished_reason="{reason}"}}'


def _door(status: str) -> str:
    return f'gpuhosts_front_door_requests_total{{job="node",host="lb1",model="m",status="{status}"}}'


def _ttft(le: str) -> str:
    return f'vllm:time_to_first_token_seconds_bucket{{{_M},le="{le}"}}'


_TTFT_COUNT = f"vllm:time_to_first_token_seconds_count{{{_M}}}"

CASES = (
    # 30 of 90 requests a minute fail at the front door: twice what 14.4 times the budget of 1 % is.
    Case(
        "EngineAvailabilityBurnFast",
        80,
        {_door("200"): "0+60", _door("502"): "0+30"},
        _OF_M,
        quiet={_door("502"): "0+0.5"},
    ),
    # Without a front door, the engines count.
    Case(
        "EngineAvailabilityBurnFast",
        80,
        {_done("stop"): "0+60", _done("error"): "0+30"},
        _OF_M,
        quiet={_done("error"): "0+0.5"},
    ),
    # What an engine never took, it does not count as finished.
    Case(
        "EngineAvailabilityBurnFast",
        80,
        {_done("stop"): "0+60", f'http_requests_total{{{_M},handler="/v1/chat/completions",status="5xx"}}': "0+30"},
        _OF_M,
        quiet={f'http_requests_total{{{_M},handler="/v1/chat/completions",status="5xx"}}': "0"},
    ),
    # An hour of errors that is over burns nothing now; and one request of two that fails is no trend.
    Case(
        "EngineAvailabilityBurnFast",
        80,
        {_door("200"): "0+60", _door("500"): "0+30"},
        _OF_M,
        quiet={_door("200"): "0+0.1", _door("500"): "0+0.1"},
    ),
    Case(
        "EngineAvailabilityBurnSlow",
        1500,
        {_door("200"): "0+300", _door("502"): "0+20"},
        _OF_M,
        quiet={_door("502"): "0+5"},
        step=5,
    ),
    Case(
        "EngineTtftBurnFast",
        80,
        {_ttft("2.5"): "0+10", _TTFT_COUNT: "0+60", _done("stop"): "0+60"},
        _OF_M,
        quiet={_ttft("2.5"): "0+59"},
    ),
    Case(  # all are late, and there are hardly any
        "EngineTtftBurnFast",
        80,
        {_ttft("2.5"): "0+10", _TTFT_COUNT: "0+60", _done("stop"): "0+60"},
        _OF_M,
        quiet={_ttft("2.5"): "0", _TTFT_COUNT: "0+0.1", _done("stop"): "0+0.1"},
    ),
    Case(
        "EngineTtftBurnSlow",
        1500,
        {_ttft("2.5"): "0+200", _TTFT_COUNT: "0+300", _done("stop"): "0+300"},
        _OF_M,
        quiet={_ttft("2.5"): "0+290"},
        step=5,
    ),
    Case(
        "EngineModelDown",
        10,
        {f"up{{{_M}}}": "0", f"up{{{_M2}}}": "0", f"up{{{_OTHER}}}": "1"},
        _OF_M,
        quiet={f"up{{{_M2}}}": "1"},
    ),
    Case(
        "EngineDown",
        10,
        {f"up{{{_M}}}": "0", f"up{{{_M2}}}": "1"},
        {**_OF_M1, "job": "vllm", "instance": "10.0.0.1:8000"},
        quiet={f"up{{{_M2}}}": "0"},  # then the model is down, which is said once
    ),
    Case(
        "EngineVanished",
        40,
        {f"up{{{_M}}}": "1x10 stale", f"up{{{_M2}}}": "1"},
        _OF_M1,
        quiet={f"up{{{_M}}}": "0"},  # down, and not vanished
        idle={f"up{{{_M}}}": "1"},
    ),
    Case(
        "EngineTargetsAbsent",
        30,
        {f"up{{{_M}}}": "1x10 stale", 'up{job="node",host="gpu1"}': "1"},
        {"job": "vllm"},
        quiet={f"up{{{_M}}}": "0"},
        idle={f"up{{{_M}}}": "1"},
        when_gone=1,
    ),
    Case(
        "EngineErrorRatio",
        20,
        {_done("stop"): "0+60", _done("error"): "0+6"},
        _OF_M,
        quiet={_done("error"): "0+1"},
    ),
    Case(  # one of two: too few to tell
        "EngineErrorRatio",
        20,
        {_done("stop"): "0+60", _done("error"): "0+6"},
        _OF_M,
        quiet={_done("stop"): "0+0.2", _done("error"): "0+0.2"},
    ),
    Case(
        "EngineStalled",
        20,
        {
            f"vllm:num_requests_running{{{_M}}}": "3",
            f"vllm:num_requests_waiting{{{_M}}}": "4",
            f"vllm:generation_tokens_total{{{_M}}}": "100",
            f"vllm:prompt_tokens_total{{{_M}}}": "100",
        },
        _OF_M1,
        quiet={f"vllm:generation_tokens_total{{{_M}}}": "100+1"},
        idle={f"vllm:num_requests_running{{{_M}}}": "0", f"vllm:num_requests_waiting{{{_M}}}": "0"},
    ),
    Case(
        "EngineKvCacheFull",
        20,
        {f"vllm:kv_cache_usage_perc{{{_M}}}": "0.99"},
        _OF_M1,
        quiet={f"vllm:kv_cache_usage_perc{{{_M}}}": "0.9"},
        idle={f"vllm:kv_cache_usage_perc{{{_M}}}": "0"},
    ),
    Case(
        "EngineKvCacheBelowPlan",
        20,
        {
            'gpuhosts_engine_kv_cache_tokens_planned{host="gpu1",model="m",instance_id="m-1"}': "1000",
            'gpuhosts_engine_kv_cache_tokens_effective{host="gpu1",model="m",instance_id="m-1"}': "800",
        },
        {**_OF_M1, "host": "gpu1"},
        quiet={'gpuhosts_engine_kv_cache_tokens_effective{host="gpu1",model="m",instance_id="m-1"}': "990"},
        # What nothing was planned for has nothing to fall short of.
        idle={'gpuhosts_engine_kv_cache_tokens_planned{host="gpu1",model="m",instance_id="m-1"}': "0"},
    ),
    Case(
        "EngineQueue",
        20,
        {f"up{{{_M}}}": "1", f"up{{{_M2}}}": "1", f"vllm:num_requests_waiting{{{_M}}}": "60"},
        _OF_M,
        quiet={f"vllm:num_requests_waiting{{{_M}}}": "30"},
        idle={f"vllm:num_requests_waiting{{{_M}}}": "0"},
    ),
    Case(
        "EnginePreemptions",
        20,
        {f"vllm:num_preemptions_total{{{_M}}}": "0+60"},
        _OF_M1,
        quiet={f"vllm:num_preemptions_total{{{_M}}}": "0+6"},
    ),
    Case(
        "EngineRejections",
        20,
        {f'vllm:admission_rejections_total{{{_M},reason="queue"}}': "0+60"},
        _OF_M,
        quiet={f'vllm:admission_rejections_total{{{_M},reason="queue"}}': "0+1"},
    ),
    Case(
        "EngineRestarts",
        50,
        {f'gpuhosts_keeper_epoch{{{_KEEPER},rank="0"}}': "1 1 0 2 2 0 3 3 4 5 5 5x50"},
        {**_HERE, "rank": "0"},
        quiet={f'gpuhosts_keeper_epoch{{{_KEEPER},rank="0"}}': "1 1 0 2 2 0 3 3 3 3 3 3x50"},
        idle={f'gpuhosts_keeper_epoch{{{_KEEPER},rank="0"}}': "1"},
    ),
    Case(
        "EngineStartsFail",
        10,
        {f'gpuhosts_keeper_failed_epochs{{{_KEEPER},rank="0"}}': "3"},
        {**_HERE, "rank": "0"},
        quiet={f'gpuhosts_keeper_failed_epochs{{{_KEEPER},rank="0"}}': "1"},
    ),
    Case(
        "EngineNotServing",
        60,
        {f'gpuhosts_keeper_state{{{_KEEPER},rank="0",state="serving"}}': "0"},
        {**_HERE, "rank": "0", "state": "serving"},
        quiet={f'gpuhosts_keeper_state{{{_KEEPER},rank="0",state="serving"}}': "0x50 1x20"},
    ),
    Case(
        "RayNodeMissing",
        20,
        {f'gpuhosts_keeper_waits{{{_KEEPER},rank="0",what="rank 1"}}': "1"},
        {**_HERE, "rank": "0", "what": "rank 1"},
        quiet={
            f'gpuhosts_keeper_waits{{{_KEEPER},rank="0",what="rank 1"}}': "1 1 1 stale",
            # As long as it wants: on one host nobody is missing.
            f'gpuhosts_keeper_waits{{{_KEEPER},rank="0",what="the end of a pause of 60 s"}}': "1",
        },
    ),
    Case(
        "RayNodeVanished",
        40,
        {
            f'gpuhosts_keeper_epoch{{{_KEEPER},rank="0"}}': "7",
            f'gpuhosts_keeper_epoch{{{_KEEPER},rank="1"}}': "7x10 stale",
        },
        {"id": "m-1", "rank": "1"},
        quiet={f'gpuhosts_keeper_epoch{{{_KEEPER},rank="1"}}': "7"},
        idle={f'gpuhosts_keeper_epoch{{{_KEEPER},rank="1"}}': "7"},
    ),
    Case(
        "RayNodesApart",
        20,
        {f'gpuhosts_keeper_epoch{{{_KEEPER},rank="0"}}': "8", f'gpuhosts_keeper_epoch{{{_KEEPER},rank="1"}}': "7"},
        {"id": "m-1"},
        quiet={f'gpuhosts_keeper_epoch{{{_KEEPER},rank="1"}}': "8"},
    ),
)
