"""Rules about hosts and about Prometheus itself; private to the collection.

``node_*`` is node_exporter's (https://github.com/prometheus/node_exporter), ``prometheus_*`` Prometheus' own,
``gpuhosts_*`` what the role exporters adds.
"""

from __future__ import annotations

from .kinds import Alert, Area

__all__ = ["HOST", "PROMETHEUS"]

_REAL = 'fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|devtmpfs|fuse.*"'

HOST = Area(
    "host",
    "Hosts",
    (
        Alert(
            "HostDown", "ticket", "3m",
            'up{job="node"} == 0',
            "{{ $labels.host }} does not answer",
            "node_exporter on {{ $labels.host }} has not answered for 3 minutes.",
        ),
        Alert(
            "HostVanished", "ticket", "10m",
            'group by (host) (last_over_time(up{job="node"}[1h])) unless group by (host) (up{job="node"})',
            "{{ $labels.host }} is no target any more",
            "{{ $labels.host }} was a target of Prometheus within the last hour.",
        ),
        Alert(
            "HostDriverMismatch", "ticket", "15m",
            "gpuhosts_driver_mismatch == 1",
            "Driver and library of {{ $labels.host }} differ",
            "The kernel module of {{ $labels.host }} is {{ $labels.loaded }}, the library {{ $labels.library }}: no"
            " engine starts there.",
        ),
        Alert(
            "HostFabricManagerMismatch", "ticket", "15m",
            "gpuhosts_fabric_manager_mismatch == 1",
            "Driver and Fabric Manager of {{ $labels.host }} differ",
            "The driver of {{ $labels.host }} is {{ $labels.driver }}, its Fabric Manager {{ $labels.fabric_manager"
            " }}: after the next"
            " start no GPU works.",
        ),
        Alert(
            "HostRebootPending", "info", "1d",
            "gpuhosts_reboot_pending == 1",
            "{{ $labels.host }} waits for a reboot",
            "{{ $labels.host }} has waited for a reboot for a day.",
        ),
        Alert(
            "HostModelDiskFull", "ticket", "15m",
            "gpuhosts_model_store_free_bytes / (gpuhosts_model_store_size_bytes > 0) < <model_disk_free_ratio>",
            "The models' disk of {{ $labels.host }} is nearly full",
            "{{ $value | humanizePercentage }} of the file system that the models of {{ $labels.host }} lie on is"
            " free.",
        ),
        Alert(
            "HostFilesystemFull", "ticket", "15m",
            f"node_filesystem_avail_bytes{{{_REAL}}} / (node_filesystem_size_bytes{{{_REAL}}} > 0) <"
            f" <filesystem_free_ratio>",
            "{{ $labels.mountpoint }} of {{ $labels.host }} is nearly full",
            "{{ $value | humanizePercentage }} of {{ $labels.mountpoint }} on {{ $labels.host }} is free.",
        ),
        Alert(
            "HostMemoryLow", "ticket", "10m",
            "node_memory_MemAvailable_bytes / (node_memory_MemTotal_bytes > 0) < <memory_available_ratio>",
            "{{ $labels.host }} has hardly any memory left",
            "{{ $value | humanizePercentage }} of the memory of {{ $labels.host }} is available.",
        ),
        Alert(
            "HostNotConverged", "info", "1h",
            "(time() - gpuhosts_last_converged_timestamp_seconds) / 86400 > <converged_days>",
            "The playbooks have not run on {{ $labels.host }} for long",
            'The last run on {{ $labels.host }} was {{ $value | printf "%.0f" }} days ago.',
        ),
        Alert(
            "HostRolledBack", "ticket", "1m",
            "gpuhosts_rolled_back_timestamp_seconds > 0",
            "An update of {{ $labels.host }} has failed and was rolled back",
            "The engines of {{ $labels.host }} serve what they served before the last update, and the roll-out stopped"
            " there.",
        ),
        Alert(
            "HostCollectorStale", "ticket", "5m",
            "time() - gpuhosts_metrics_last_run_timestamp_seconds > 600 or node_textfile_scrape_error == 1",
            "What {{ $labels.host }} tells of itself is old",
            "A part of gpuhosts-metrics on {{ $labels.host }} has failed for 10 minutes, or its files cannot be read.",
        ),
    ),
)  # fmt: skip

PROMETHEUS = Area(
    "prometheus",
    "Prometheus itself",
    (
        Alert(
            "PrometheusTargetDown", "ticket", "10m",
            'up{job!~"vllm|node|nginx"} == 0',
            "{{ $labels.job }} at {{ $labels.instance }} does not answer",
            "{{ $labels.instance }} of the job {{ $labels.job }} has not been scraped for 10 minutes.",
        ),
        Alert(
            "PrometheusJobVanished", "ticket", "10m",
            "group by (job) (last_over_time(up[1h])) unless group by (job) (up)",
            "Prometheus has no target of the job {{ $labels.job }} any more",
            "The job {{ $labels.job }} had targets within the last hour.",
        ),
        Alert(
            "PrometheusReloadFailed", "ticket", "5m",
            "prometheus_config_last_reload_successful == 0",
            "Prometheus has not taken up its configuration",
            "The last reload of {{ $labels.instance }} failed; it goes on with what it had.",
        ),
        Alert(
            "PrometheusRulesFail", "ticket", "5m",
            "sum by (instance, rule_group) (increase(prometheus_rule_evaluation_failures_total[5m])) > 0",
            "Rules of {{ $labels.instance }} fail",
            'Rules of {{ $labels.rule_group }} failed {{ $value | printf "%.0f" }} times within 5 minutes: alerts'
            ' may be missing.',
        ),
        Alert(
            "PrometheusNotificationsFail", "page", "10m",
            "rate(prometheus_notifications_errors_total[5m]) > 0",
            "Prometheus cannot tell Alertmanager",
            "Alerts of {{ $labels.instance }} do not reach {{ $labels.alertmanager }}.",
        ),
        Alert(
            "PrometheusAlertmanagerLost", "ticket", "5m",
            "prometheus_notifications_alertmanagers_discovered <"
            " max_over_time(prometheus_notifications_alertmanagers_discovered[6h])",
            "{{ $labels.instance }} knows fewer Alertmanagers than it did",
            "{{ $labels.instance }} knows {{ $value }} Alertmanagers, and knew more within the last 6 hours.",
        ),
        Alert(
            "PrometheusStorageFails", "ticket", "5m",
            "increase(prometheus_tsdb_compactions_failed_total[3h]) > 0 or"
            " increase(prometheus_tsdb_wal_corruptions_total[3h]) > 0",
            "{{ $labels.instance }} cannot keep its samples",
            "Compaction failed, or the write-ahead log of {{ $labels.instance }} was damaged, within 3 hours.",
        ),
        Alert(
            "PrometheusRemoteWriteFails", "ticket", "15m",
            "rate(prometheus_remote_storage_samples_failed_total[5m]) > 0",
            "Samples do not reach the remote storage",
            '{{ $value | printf "%.1f" }} samples a second of {{ $labels.instance }} are lost on the way to {{'
            ' $labels.url }}.',
        ),
    ),
)  # fmt: skip
