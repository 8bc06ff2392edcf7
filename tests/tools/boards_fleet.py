"""The dashboards for all that runs: fleet, capacity and front door."""

from __future__ import annotations

from tests.tools.boards import (
    HOST,
    QUIET,
    Board,
    areas,
    lines,
    quantile,
    quantiles,
    query,
    share,
    stat,
    table,
    total,
)

_DOOR = "gpuhosts_front_door_requests_total"
_BYTE = "gpuhosts_front_door_first_byte_seconds"
_WHOLE = "gpuhosts_front_door_seconds"
_H = 'host=~"$host"'
_FIRING = 'ALERTS{alertstate="firing"}'

FLEET = Board(
    "fleet",
    "Fleet",
    (),
    (
        (
            "Now",
            (
                stat("Engines up", "Engines that Prometheus reaches.", 'sum(up{job="vllm"})'),
                stat(
                    "Engines unreachable",
                    "Engines that are planned here and do not answer.",
                    'count(up{job="vllm"} == 0) or vector(0)',
                    steps=(1, 1),
                ),
                stat("Requests", "Finished by all engines.", total("vllm:request_success_total"), "reqps"),
                stat("Output tokens", "Of all engines.", total("vllm:generation_tokens_total"), "short"),
                stat(
                    "Errors at the front door",
                    "Share of answers 5xx.",
                    share(total(_DOOR, where='status=~"5.."'), total(_DOOR)),
                    "percentunit",
                    steps=(0.01, 0.05),
                    empty=QUIET,
                ),
                stat("Alerts", "That fire now.", f"count({_FIRING}) or vector(0)", steps=(1, 5)),
            ),
        ),
        (
            "Models",
            (
                table(
                    "Models",
                    "One line for each model; its name leads to its own dashboard.",
                    (
                        ("Engines up", "short"),
                        ("Requests per second", "reqps"),
                        ("Output tokens per second", "short"),
                        ("Waiting", "short"),
                        ("KV cache", "percentunit"),
                        ("TTFT p95", "s"),
                        ("E2E p95", "s"),
                    ),
                    'sum by (model) (up{job="vllm"})',
                    total("vllm:request_success_total", "model"),
                    total("vllm:generation_tokens_total", "model"),
                    "sum by (model) (vllm:num_requests_waiting)",
                    "max by (model) (vllm:kv_cache_usage_perc)",
                    quantile(0.95, "vllm:time_to_first_token_seconds", "model"),
                    quantile(0.95, "vllm:e2e_request_latency_seconds", "model"),
                ),
            ),
        ),
        (
            "Traffic",
            (
                areas(
                    "Requests per second",
                    "Finished, by model.",
                    query(total("vllm:request_success_total", "model"), "{{model}}"),
                    unit="reqps",
                ),
                areas(
                    "Output tokens per second",
                    "By model.",
                    query(total("vllm:generation_tokens_total", "model"), "{{model}}"),
                ),
                lines(
                    "Time to first token, p95",
                    "By model.",
                    query(quantile(0.95, "vllm:time_to_first_token_seconds", "model"), "{{model}}"),
                    unit="s",
                    empty=QUIET,
                ),
                lines(
                    "Waiting requests",
                    "In the queues of a model's engines.",
                    query("sum by (model) (vllm:num_requests_waiting)", "{{model}}"),
                ),
                lines(
                    "KV cache in use",
                    "Of the fullest engine of a model.",
                    query("max by (model) (vllm:kv_cache_usage_perc)", "{{model}}"),
                    unit="percentunit",
                    steps=(0.9, 0.98),
                    most=1,
                ),
                lines("Engines up", "By model.", query('sum by (model) (up{job="vllm"})', "{{model}}")),
            ),
        ),
        (
            "Hosts",
            (
                lines(
                    "CPU in use",
                    "Of all cores of a host.",
                    query(
                        '1 - avg by (host) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))', "{{host}}"
                    ),
                    unit="percentunit",
                    most=1,
                ),
                lines(
                    "Memory in use",
                    "What could not be given to a program.",
                    query("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{host}}"),
                    unit="percentunit",
                    steps=(0.9, 0.97),
                    most=1,
                ),
                lines(
                    "GPUs in use",
                    "Share of time in which a kernel ran, over the GPUs of a host.",
                    query("avg by (host) (DCGM_FI_DEV_GPU_UTIL) / 100", "{{host}}"),
                    unit="percentunit",
                    most=1,
                ),
                table(
                    "Hosts",
                    "What the collector of the role exporters tells.",
                    (
                        ("Last converged", "dateTimeAsIso"),
                        ("GPUs expected", "short"),
                        ("GPUs found", "short"),
                        ("Reboot pending", "short"),
                    ),
                    "max by (host) (gpuhosts_last_converged_timestamp_seconds) * 1000",
                    "sum by (host) (gpuhosts_gpus_expected)",
                    "sum by (host) (gpuhosts_gpus_found)",
                    "max by (host) (gpuhosts_reboot_pending)",
                ),
            ),
        ),
        (
            "Alerts",
            (
                table(
                    "Alerts that fire",
                    "The name leads to the page that says what to do.",
                    (("Firing", "short"),),
                    f"sum by (alertname, severity, model, instance_id, host) ({_FIRING})",
                    empty="None",
                ),
            ),
        ),
    ),
)

CAPACITY = Board(
    "capacity",
    "Capacity",
    (),
    (
        (
            "Memory: what was planned and what came",
            (
                table(
                    "KV cache, in tokens",
                    "What the plan promised of each instance, and what its engine has.",
                    (("Planned", "short"), ("Effective", "short"), ("Effective of planned", "percentunit")),
                    "sum by (model, instance_id) (gpuhosts_engine_kv_cache_tokens_planned)",
                    "sum by (model, instance_id) (gpuhosts_engine_kv_cache_tokens_effective)",
                    "sum by (model, instance_id) (gpuhosts_engine_kv_cache_tokens_effective)"
                    " / (sum by (model, instance_id) (gpuhosts_engine_kv_cache_tokens_planned) > 0)",
                ),
                lines(
                    "Tokens in the KV cache",
                    "Held now, and what a model's engines can hold.",
                    query(
                        "sum by (model) (vllm:kv_cache_usage_perc * on (instance_id)"
                        " group_left () gpuhosts_engine_kv_cache_tokens_effective)",
                        "{{model}}, held",
                    ),
                    query("sum by (model) (gpuhosts_engine_kv_cache_tokens_effective)", "{{model}}, room"),
                    width=12,
                ),
                lines(
                    "Fullest KV cache, highest in an hour",
                    "Of the engines of a model: what is left is room to grow.",
                    query("max by (model) (max_over_time(vllm:kv_cache_usage_perc[1h]))", "{{model}}"),
                    unit="percentunit",
                    steps=(0.9, 0.98),
                    most=1,
                    width=12,
                ),
            ),
        ),
        (
            "Speed",
            (
                lines(
                    "Output tokens per second of a request",
                    "What a reader sees: tokens per second over the requests that run.",
                    query(
                        share(
                            total("vllm:generation_tokens_total", "model"),
                            "avg_over_time(sum by (model) (vllm:num_requests_running)[$__rate_interval:15s])",
                            "model",
                        ),
                        "{{model}}",
                    ),
                    empty=QUIET,
                ),
                lines(
                    "Output tokens per second of an engine",
                    "Over the engines of a model that are up.",
                    query(
                        share(
                            total("vllm:generation_tokens_total", "model"), 'sum by (model) (up{job="vllm"})', "model"
                        ),
                        "{{model}}",
                    ),
                ),
                lines(
                    "Tokens of a step, mean",
                    "What an engine computes at once; at its cap prompts wait for one another.",
                    query(
                        share(
                            total("vllm:iteration_tokens_total_sum", "model"),
                            total("vllm:iteration_tokens_total_count", "model"),
                            "model",
                        ),
                        "{{model}}",
                    ),
                    empty=QUIET,
                ),
            ),
        ),
        (
            "Room for more",
            (
                lines(
                    "Running requests",
                    "By model.",
                    query("sum by (model) (vllm:num_requests_running)", "{{model}}"),
                ),
                lines(
                    "Free GPU memory",
                    "Which no engine has taken, by host.",
                    query("sum by (host) (DCGM_FI_DEV_FB_FREE)", "{{host}}"),
                    unit="mbytes",
                ),
                lines(
                    "Free in the model store",
                    "Of its file system, by host.",
                    query("gpuhosts_model_store_free_bytes / (gpuhosts_model_store_size_bytes > 0)", "{{host}}"),
                    unit="percentunit",
                    most=1,
                ),
            ),
        ),
    ),
)

FRONT_DOOR = Board(
    "front-door",
    "Front door",
    (HOST,),
    (
        (
            "Now",
            (
                stat("Requests", "That NGINX has answered.", total(_DOOR, where=_H), "reqps"),
                stat(
                    "Errors",
                    "Share of answers 5xx.",
                    share(total(_DOOR, where='host=~"$host", status=~"5.."'), total(_DOOR, where=_H)),
                    "percentunit",
                    steps=(0.01, 0.05),
                    empty=QUIET,
                ),
                stat(
                    "First byte, p95",
                    "Until the server's first byte.",
                    quantile(0.95, _BYTE, where=_H),
                    "s",
                    empty=QUIET,
                ),
                stat("Connections", "Open now.", 'sum(nginx_connections_active{host=~"$host"})'),
                stat(
                    "Drained servers",
                    "Which get no new request.",
                    'count(gpuhosts_server_drained_since_timestamp_seconds{host=~"$host"} > 0) or vector(0)',
                    steps=(1,),
                ),
                stat(
                    "Certificate ends in",
                    "The first of them.",
                    'min(gpuhosts_certificate_expiry_timestamp_seconds{host=~"$host"}) - time()',
                    "s",
                    below=(1209600, 259200),
                    empty="No certificate",
                ),
            ),
        ),
        (
            "Requests",
            (
                areas(
                    "Answers per second, by status",
                    "All models.",
                    query(total(_DOOR, "status", _H), "{{status}}"),
                    unit="reqps",
                ),
                lines(
                    "Client gone, no server, server silent",
                    "499: the client went before the end. 502, 503: no server took it. 504: silent for too long.",
                    query(total(_DOOR, "status", 'host=~"$host", status=~"499|502|503|504"'), "{{status}}"),
                    unit="reqps",
                    empty="None",
                ),
                areas(
                    "Answers per second, by model",
                    "All status codes.",
                    query(total(_DOOR, "model", _H), "{{model}}"),
                    unit="reqps",
                ),
                lines(
                    "Until the first byte",
                    "From the server; a streamed answer begins with it.",
                    *quantiles(_BYTE, _H),
                    unit="s",
                    empty=QUIET,
                ),
                lines(
                    "Until the last byte",
                    "The whole request.",
                    *quantiles(_WHOLE, _H),
                    unit="s",
                    empty=QUIET,
                ),
                lines(
                    "First byte by model, p95",
                    "From the server.",
                    query(quantile(0.95, _BYTE, "model", _H), "{{model}}"),
                    unit="s",
                    empty=QUIET,
                ),
            ),
        ),
        (
            "NGINX",
            (
                lines(
                    "Connections",
                    "Open, and which of them wait for a request.",
                    query('sum by (host) (nginx_connections_active{host=~"$host"})', "{{host}}, open"),
                    query('sum by (host) (nginx_connections_waiting{host=~"$host"})', "{{host}}, idle"),
                ),
                lines(
                    "Connections dropped per second",
                    "Accepted and not handled: a limit was reached.",
                    query(
                        f"{total('nginx_connections_accepted', 'host', _H)}"
                        f" - {total('nginx_connections_handled', 'host', _H)}",
                        "{{host}}",
                    ),
                ),
                table(
                    "Drained servers",
                    "Who is out of service, why, and for how long.",
                    (("Drained for", "s"),),
                    "time() - max by (server, reason) "
                    '(gpuhosts_server_drained_since_timestamp_seconds{host=~"$host"} > 0)',
                    width=8,
                    empty="None",
                ),
            ),
        ),
    ),
)
