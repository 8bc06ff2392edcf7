"""The dashboards for one thing each: a model, an instance, the GPUs of a host."""

from __future__ import annotations

from tests.tools.boards import (
    HOST,
    INSTANCE,
    MODEL,
    OBJECTIVE,
    QUIET,
    Board,
    areas,
    lines,
    quantiles,
    query,
    share,
    stat,
    table,
    total,
)

_M = 'model="$model"'
_I = 'instance_id=~"$instance"'
_NAMED = "{{instance_id}} "
_KEEPER = 'id=~"$instance"'
_H = 'host=~"$host"'
_TTFT = "vllm:time_to_first_token_seconds"
_DONE = "vllm:request_success_total"

_LATENCY = (
    ("Time to first token", "From the arrival at the engine: queue and prompt.", _TTFT),
    ("Between two tokens", "Of a stream.", "vllm:inter_token_latency_seconds"),
    ("Whole request", "From arrival to the last token.", "vllm:e2e_request_latency_seconds"),
    ("In the queue", "Until the engine began.", "vllm:request_queue_time_seconds"),
    ("Prompt", "From the begin to the first token.", "vllm:request_prefill_time_seconds"),
    ("Answer", "From the first to the last token.", "vllm:request_decode_time_seconds"),
)

MODEL_BOARD = Board(
    "model",
    "Model",
    (MODEL, OBJECTIVE),
    (
        (
            "Objectives",
            (
                stat("Engines up", "Of this model.", f'sum(up{{job="vllm", {_M}}})'),
                stat(
                    "First token in time",
                    "Share of requests within the time chosen above.",
                    share(total(f"{_TTFT}_bucket", where=f'{_M}, le="$ttft"'), total(f"{_TTFT}_count", where=_M)),
                    "percentunit",
                    below=(0.99, 0.95),
                    empty=QUIET,
                ),
                stat(
                    "Without error",
                    "Share of requests that did not end in an error of the engine.",
                    share(total(_DONE, where=f'{_M}, finished_reason!="error"'), total(_DONE, where=_M)),
                    "percentunit",
                    below=(0.999, 0.99),
                    empty=QUIET,
                ),
                stat("Requests", "Finished.", total(_DONE, where=_M), "reqps"),
                stat("Output tokens", "Per second.", total("vllm:generation_tokens_total", where=_M)),
                stat(
                    "Waiting",
                    "In the queues.",
                    f"sum(vllm:num_requests_waiting{{{_M}}})",
                    steps=(10, 50),
                ),
            ),
        ),
        (
            "Traffic",
            (
                areas(
                    "Finished requests, by reason",
                    "stop and length are ends as wanted; abort: the client went.",
                    query(total(_DONE, "finished_reason", _M), "{{finished_reason}}"),
                    unit="reqps",
                ),
                lines(
                    "Tokens per second",
                    "Of prompts, and of answers.",
                    query(total("vllm:prompt_tokens_total", where=_M), "prompt"),
                    query(total("vllm:generation_tokens_total", where=_M), "answer"),
                ),
                lines(
                    "Tokens of a request",
                    "Length of prompts and answers.",
                    *quantiles("vllm:request_prompt_tokens", _M, prefix="prompt "),
                    *quantiles("vllm:request_generation_tokens", _M, prefix="answer "),
                    empty=QUIET,
                ),
            ),
        ),
        (
            "Latency",
            tuple(
                lines(title, about, *quantiles(metric, _M), unit="s", empty=QUIET) for title, about, metric in _LATENCY
            ),
        ),
        (
            "Load",
            (
                lines(
                    "Running and waiting",
                    "Requests of all engines.",
                    query(f"sum(vllm:num_requests_running{{{_M}}})", "running"),
                    query(f"sum(vllm:num_requests_waiting{{{_M}}})", "waiting"),
                ),
                areas(
                    "Why requests wait",
                    "capacity: no room in the engine; deferred: for something else, such as a transfer.",
                    query(f"sum by (reason) (vllm:num_requests_waiting_by_reason{{{_M}}})", "{{reason}}"),
                ),
                lines(
                    "KV cache in use",
                    "By engine.",
                    query(f"max by (instance_id) (vllm:kv_cache_usage_perc{{{_M}}})", "{{instance_id}}"),
                    unit="percentunit",
                    steps=(0.9, 0.98),
                    most=1,
                ),
                lines(
                    "Found in the prefix cache",
                    "Share of prompt tokens that need no computing.",
                    query(
                        share(
                            total("vllm:prefix_cache_hits_total", where=_M),
                            total("vllm:prefix_cache_queries_total", where=_M),
                        ),
                        "found",
                    ),
                    unit="percentunit",
                    most=1,
                    empty=QUIET,
                ),
                lines(
                    "Preempted requests",
                    "Thrown out of a full KV cache, to be computed again.",
                    query(total("vllm:num_preemptions_total", "instance_id", _M), "{{instance_id}}"),
                    unit="reqps",
                ),
                lines(
                    "Requests by engine",
                    "Whether the front door spreads them evenly.",
                    query(total(_DONE, "instance_id", _M), "{{instance_id}}"),
                    unit="reqps",
                ),
            ),
        ),
    ),
)

INSTANCE_BOARD = Board(
    "instance",
    "Instance",
    (INSTANCE,),
    (
        (
            "Now",
            (
                stat("Up", "Instances that answer.", f'sum(up{{job="vllm", {_I}}})'),
                stat("Running", "Requests.", f"sum(vllm:num_requests_running{{{_I}}})"),
                stat("Waiting", "Requests.", f"sum(vllm:num_requests_waiting{{{_I}}})", steps=(10, 50)),
                stat(
                    "KV cache",
                    "In use, of the fullest.",
                    f"max(vllm:kv_cache_usage_perc{{{_I}}})",
                    "percentunit",
                    steps=(0.9, 0.98),
                ),
                stat(
                    "Last start took",
                    "Until the first token, the slowest.",
                    f"max(gpuhosts_keeper_start_seconds{{{_KEEPER}}})",
                    "s",
                ),
                stat(
                    "Failed epochs",
                    "Lives in a row that never answered.",
                    f"max(gpuhosts_keeper_failed_epochs{{{_KEEPER}}})",
                    steps=(1, 3),
                ),
            ),
        ),
        (
            "Life",
            (
                table(
                    "Keepers",
                    "State of every node of the instances; an instance over several hosts has a node on each.",
                    (("Since", "dateTimeAsIso"),),
                    f"max by (id, rank, host, state) (gpuhosts_keeper_state{{{_KEEPER}}} == 1)"
                    f" * on (id, rank, host) group_left () max by (id, rank, host)"
                    f" (gpuhosts_keeper_epoch{{{_KEEPER}}})",
                    width=12,
                ),
                table(
                    "KV cache",
                    "As the engines have it.",
                    (("Engines", "short"),),
                    "sum by (instance_id, kv_cache_size_tokens, kv_cache_max_concurrency, block_size, cache_dtype,"
                    f" gpu_memory_utilization) (vllm:cache_config_info{{{_I}}})",
                    width=12,
                ),
            ),
        ),
        (
            "Work",
            (
                lines(
                    "Requests per second",
                    "Finished.",
                    query(total(_DONE, "instance_id", _I), "{{instance_id}}"),
                    unit="reqps",
                ),
                lines(
                    "Output tokens per second",
                    "By instance.",
                    query(total("vllm:generation_tokens_total", "instance_id", _I), "{{instance_id}}"),
                ),
                lines(
                    "Running requests",
                    "By instance.",
                    query(f"sum by (instance_id) (vllm:num_requests_running{{{_I}}})", "{{instance_id}}"),
                ),
                lines(
                    "Waiting requests",
                    "By instance.",
                    query(f"sum by (instance_id) (vllm:num_requests_waiting{{{_I}}})", "{{instance_id}}"),
                ),
                *(
                    lines(
                        title, about, *quantiles(metric, _I, "instance_id", "{{instance_id}} "), unit="s", empty=QUIET
                    )
                    for title, about, metric in _LATENCY[:3]
                ),
                lines(
                    "KV cache in use",
                    "By instance.",
                    query(f"max by (instance_id) (vllm:kv_cache_usage_perc{{{_I}}})", "{{instance_id}}"),
                    unit="percentunit",
                    steps=(0.9, 0.98),
                    most=1,
                ),
            ),
        ),
        (
            "Server",
            (
                areas(
                    "Answers by status",
                    "Of the engine's own web server, from the front door and others.",
                    query(total("http_requests_total", "status", _I), "{{status}}"),
                    unit="reqps",
                ),
                lines(
                    "Memory",
                    "Of the process that answers; the engine's own is beside it.",
                    query(f'process_resident_memory_bytes{{job="vllm", {_I}}}', "{{instance_id}}"),
                    unit="bytes",
                ),
                lines(
                    "CPU",
                    "Cores of the process that answers.",
                    query(total("process_cpu_seconds_total", "instance_id", f'job="vllm", {_I}'), "{{instance_id}}"),
                ),
            ),
        ),
    ),
)

GPU_BOARD = Board(
    "gpu",
    "GPUs",
    (HOST,),
    (
        (
            "Now",
            (
                stat("Found", "GPUs that the driver has.", f"sum(gpuhosts_gpus_found{{{_H}}})"),
                stat(
                    "Missing",
                    "GPUs that were there at the last run.",
                    f"sum(gpuhosts_gpus_expected{{{_H}}}) - sum(gpuhosts_gpus_found{{{_H}}})",
                    steps=(1, 1),
                ),
                stat(
                    "Orphaned memory",
                    "Held by processes of no engine's unit.",
                    f"sum(gpuhosts_gpu_orphan_bytes{{{_H}}})",
                    "bytes",
                    steps=(1e9, 2e9),
                ),
                stat(
                    "Driver differs",
                    "Hosts whose loaded driver is not the installed one, or not the Fabric Manager's.",
                    f"sum(gpuhosts_driver_mismatch{{{_H}}})"
                    f" + (sum(gpuhosts_fabric_manager_mismatch{{{_H}}}) or vector(0))",
                    steps=(1, 1),
                ),
                stat("Hottest", "Of the GPUs.", f"max(DCGM_FI_DEV_GPU_TEMP{{{_H}}})", "celsius", steps=(80, 87)),
                stat("Power", "Of all GPUs.", f"sum(DCGM_FI_DEV_POWER_USAGE{{{_H}}})", "watt"),
            ),
        ),
        (
            "Work",
            (
                lines(
                    "In use",
                    "Share of time in which a kernel ran.",
                    query(f"DCGM_FI_DEV_GPU_UTIL{{{_H}}} / 100", "{{host}} {{gpu}}"),
                    unit="percentunit",
                    most=1,
                ),
                lines(
                    "Memory in use",
                    "Engines take all of theirs at the start.",
                    query(
                        f"DCGM_FI_DEV_FB_USED{{{_H}}}"
                        f" / (DCGM_FI_DEV_FB_USED{{{_H}}} + DCGM_FI_DEV_FB_FREE{{{_H}}} > 0)",
                        "{{host}} {{gpu}}",
                    ),
                    unit="percentunit",
                    most=1,
                ),
                lines(
                    "Tensor cores and memory bus",
                    "Share of cycles. Decoding is bound by the bus, prompts by the cores. DCGM alone knows it.",
                    query(f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{_H}}}", "{{host}} {{gpu}} tensor"),
                    query(f"DCGM_FI_PROF_DRAM_ACTIVE{{{_H}}}", "{{host}} {{gpu}} bus"),
                    unit="percentunit",
                    most=1,
                ),
            ),
        ),
        (
            "Body",
            (
                lines(
                    "Temperature",
                    "Of the chip.",
                    query(f"DCGM_FI_DEV_GPU_TEMP{{{_H}}}", "{{host}} {{gpu}}"),
                    unit="celsius",
                    steps=(80, 87),
                ),
                lines(
                    "Power",
                    "Drawn now.",
                    query(f"DCGM_FI_DEV_POWER_USAGE{{{_H}}}", "{{host}} {{gpu}}"),
                    unit="watt",
                ),
                lines(
                    "Clock",
                    "Of the cores; lower under load means hot, or short of power.",
                    query(f"DCGM_FI_DEV_SM_CLOCK{{{_H}}} * 1e6", "{{host}} {{gpu}}"),
                    unit="hertz",
                ),
            ),
        ),
        (
            "Links and errors",
            (
                lines(
                    "PCI Express",
                    "Bytes per second, sent and received. DCGM alone knows it.",
                    query(f"DCGM_FI_PROF_PCIE_TX_BYTES{{{_H}}}", "{{host}} {{gpu}} sent"),
                    query(f"DCGM_FI_PROF_PCIE_RX_BYTES{{{_H}}}", "{{host}} {{gpu}} received"),
                    unit="Bps",
                ),
                lines(
                    "PCI Express, sent again",
                    "Packets; many mean a bad slot or riser.",
                    query(total("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "host, gpu", _H), "{{host}} {{gpu}}"),
                ),
                table(
                    "Errors",
                    "The last XID since the driver was loaded, and memory that was replaced.",
                    (("Last XID", "short"), ("Rows replaced", "short"), ("Replacing failed", "short")),
                    f"max by (host, gpu) (DCGM_FI_DEV_XID_ERRORS{{{_H}}})",
                    f"max by (host, gpu) (DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS{{{_H}}})",
                    f"max by (host, gpu) (DCGM_FI_DEV_ROW_REMAP_FAILURE{{{_H}}})",
                    width=8,
                ),
            ),
        ),
    ),
)
