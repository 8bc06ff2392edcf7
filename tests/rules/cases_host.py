"""Alerts about hosts and about Prometheus itself."""

from __future__ import annotations

from .case import Case

__all__ = ["CASES"]

_NODE = {"job": "node", "host": "gpu1", "instance": "10.0.0.1:9100"}
_DISK = {**_NODE, "device": "/dev/sda1", "fstype": "ext4", "mountpoint": "/"}
_PROMETHEUS = {"job": "prometheus", "instance": "127.0.0.1:9090"}


def _series(name: str, **more: str) -> str:
    return _with(name, {**_NODE, **more})


def _with(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _self(name: str, **more: str) -> str:
    return _with(name, {**_PROMETHEUS, **more})


_UP = _series("up")
_FREE, _SIZE = _with("node_filesystem_avail_bytes", _DISK), _with("node_filesystem_size_bytes", _DISK)
_RAM, _RAM_SIZE = (
    _with(f"node_filesystem_{name}_bytes", {**_DISK, "fstype": "tmpfs", "mountpoint": "/run"})
    for name in ("avail", "size")
)
_MODELS_FREE, _MODELS_SIZE = _series("gpuhosts_model_store_free_bytes"), _series("gpuhosts_model_store_size_bytes")
_MEMORY, _MEMORY_SIZE = _series("node_memory_MemAvailable_bytes"), _series("node_memory_MemTotal_bytes")
_DRIVER = {"loaded": "580.95.05", "library": "580.126.09"}
_FABRIC = {"driver": "580.95.05", "fabric_manager": "580.126.09"}
_GPU_EXPORTER = _with("up", {"job": "gpu", "host": "gpu1", "instance": "10.0.0.1:9400"})
_ALERTMANAGERS = _self("prometheus_notifications_alertmanagers_discovered")
_ERRORS = _self("prometheus_notifications_errors_total", alertmanager="http://10.0.0.5:9093/api/v2/alerts")
_FAILURES = _self("prometheus_rule_evaluation_failures_total", rule_group="gpuhosts_gpu")

CASES = (
    Case("HostDown", 10, {_UP: "0"}, _NODE, quiet={_UP: "1"}),
    Case("HostVanished", 40, {_UP: "1x10 stale"}, {"host": "gpu1"}, quiet={_UP: "0"}, idle={_UP: "1"}),
    Case(
        "HostDriverMismatch",
        30,
        {_series("gpuhosts_driver_mismatch", **_DRIVER): "1"},
        {**_NODE, **_DRIVER},
        quiet={_series("gpuhosts_driver_mismatch", **_DRIVER): "0"},
    ),
    Case(
        "HostFabricManagerMismatch",
        30,
        {_series("gpuhosts_fabric_manager_mismatch", **_FABRIC): "1"},
        {**_NODE, **_FABRIC},
        quiet={_series("gpuhosts_fabric_manager_mismatch", **_FABRIC): "0"},
    ),
    Case(
        "HostRebootPending",
        1500,
        {_series("gpuhosts_reboot_pending"): "1"},
        _NODE,
        quiet={_series("gpuhosts_reboot_pending"): "1x100 0x200"},
        step=5,
    ),
    Case(
        "HostModelDiskFull",
        30,
        {_MODELS_FREE: "100", _MODELS_SIZE: "1000"},
        _NODE,
        quiet={_MODELS_FREE: "200"},
        idle={_MODELS_SIZE: "0"},
    ),
    Case(
        "HostFilesystemFull",
        30,
        {_FREE: "50", _SIZE: "1000", _RAM: "0", _RAM_SIZE: "1000"},
        _DISK,
        quiet={_FREE: "200"},
        idle={_SIZE: "0"},
    ),
    Case("HostMemoryLow", 20, {_MEMORY: "10", _MEMORY_SIZE: "1000"}, _NODE, quiet={_MEMORY: "100"}),
    Case(
        "HostNotConverged",
        90,
        {_series("gpuhosts_last_converged_timestamp_seconds"): "-4320000"},
        _NODE,
        quiet={_series("gpuhosts_last_converged_timestamp_seconds"): "0"},
    ),
    Case(
        "HostRolledBack",
        3,
        {_series("gpuhosts_rolled_back_timestamp_seconds"): "1790000000"},
        _NODE,
        quiet={_series("gpuhosts_rolled_back_timestamp_seconds"): "stale"},
    ),
    Case(
        "HostCollectorStale",
        30,
        {_series("gpuhosts_metrics_last_run_timestamp_seconds", part="gpu"): "0"},
        {**_NODE, "part": "gpu"},
        quiet={_series("gpuhosts_metrics_last_run_timestamp_seconds", part="gpu"): "0+60"},
        idle={_series("gpuhosts_metrics_last_run_timestamp_seconds", part="gpu"): "0+60"},
    ),
    Case(
        "HostCollectorStale",
        30,
        {_series("node_textfile_scrape_error"): "1"},
        _NODE,
        quiet={_series("node_textfile_scrape_error"): "0"},
    ),
    Case(
        "PrometheusTargetDown",
        20,
        {_GPU_EXPORTER: "0", _UP: "0"},
        {"job": "gpu", "host": "gpu1", "instance": "10.0.0.1:9400"},
        quiet={_GPU_EXPORTER: "1"},
    ),
    Case(
        "PrometheusJobVanished",
        40,
        {_GPU_EXPORTER: "1x10 stale", _UP: "1"},
        {"job": "gpu"},
        quiet={_GPU_EXPORTER: "0"},
        idle={_GPU_EXPORTER: "1"},
    ),
    Case(
        "PrometheusReloadFailed",
        20,
        {_self("prometheus_config_last_reload_successful"): "0"},
        _PROMETHEUS,
        quiet={_self("prometheus_config_last_reload_successful"): "1"},
    ),
    Case(
        "PrometheusRulesFail",
        20,
        {_FAILURES: "0+1"},
        {"instance": "127.0.0.1:9090", "rule_group": "gpuhosts_gpu"},
        quiet={_FAILURES: "7"},
    ),
    Case(
        "PrometheusNotificationsFail",
        30,
        {_ERRORS: "0+1"},
        {**_PROMETHEUS, "alertmanager": "http://10.0.0.5:9093/api/v2/alerts"},
        quiet={_ERRORS: "7"},
    ),
    Case(
        "PrometheusAlertmanagerLost",
        30,
        {_ALERTMANAGERS: "1x10 0x30"},
        _PROMETHEUS,
        quiet={_ALERTMANAGERS: "1"},
        idle={_ALERTMANAGERS: "0"},  # there has never been one
    ),
    *(
        Case("PrometheusStorageFails", 20, {_self(name): "0+1"}, _PROMETHEUS, quiet={_self(name): "3"}, gone_after=300)
        for name in ("prometheus_tsdb_compactions_failed_total", "prometheus_tsdb_wal_corruptions_total")
    ),
    Case(
        "PrometheusRemoteWriteFails",
        30,
        {_self("prometheus_remote_storage_samples_failed_total", url="https://x"): "0+60"},
        {**_PROMETHEUS, "url": "https://x"},
        quiet={_self("prometheus_remote_storage_samples_failed_total", url="https://x"): "7"},
    ),
)
