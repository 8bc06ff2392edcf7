"""Rules about the front door; private to the collection.

``gpuhosts_front_door_*`` come from NGINX's log, ``gpuhosts_server_*`` from its configuration, and
``gpuhosts_front_address_held`` from the kernel of the host (role exporters);
``nginx_up`` is nginx-prometheus-exporter's: https://github.com/nginx/nginx-prometheus-exporter#metrics-for-nginx-oss.
"""

from __future__ import annotations

from .kinds import Alert, Area

__all__ = ["FRONT_DOOR"]

_ALL = 'sum by (model) (rate(gpuhosts_front_door_requests_total{model!=""}[5m]))'


def _share(status: str, limit: str) -> str:
    part = f'sum by (model) (rate(gpuhosts_front_door_requests_total{{model!="",status=~"{status}"}}[5m]))'
    return f"{part} / ({_ALL} > 0) > <{limit}> and on (model) {_ALL} >= <ratio_requests_per_second>"


FRONT_DOOR = Area(
    "front_door",
    "Front door",
    (
        Alert(
            "FrontDoorDown", "page", "1m",
            'nginx_up == 0 or up{job="nginx"} == 0',
            "The front door of {{ $labels.host }} does not answer",
            "NGINX on {{ $labels.host }}, or the exporter that asks it, does not answer.",
        ),
        Alert(
            "FrontDoorVanished", "ticket", "10m",
            'group by (host) (last_over_time(up{job="nginx"}[1h])) unless group by (host) (up{job="nginx"})',
            "The front door of {{ $labels.host }} is no target any more",
            "NGINX of {{ $labels.host }} was a target of Prometheus within the last hour.",
        ),
        Alert(
            "FrontDoorAddressHolders", "page", "2m",
            "sum by (address) (gpuhosts_front_address_held) != 1",
            "{{ $value }} load balancers hold {{ $labels.address }}",
            "{{ $value }} load balancers hold the address that they share, {{ $labels.address }}. One of them should.",
        ),
        Alert(
            "FrontDoorFirstByteSlow", "ticket", "10m",
            "model:first_byte_seconds:p95 > <first_byte_seconds>"
            f" and on (model) {_ALL} >= <ratio_requests_per_second>",
            "Answers of {{ $labels.model }} begin late",
            "The 95th percentile of the time to the first byte of {{ $labels.model }} is {{ $value |"
            " humanizeDuration }}.",
        ),
        Alert(
            "FrontDoorClientsLeave", "ticket", "10m",
            _share("499", "client_closed_ratio"),
            "Clients of {{ $labels.model }} do not wait for the answer",
            "{{ $value | humanizePercentage }} of the clients of {{ $labels.model }} hung up before the answer was"
            " whole (499).",
        ),
        Alert(
            "FrontDoorBadGateway", "page", "5m",
            # NGINX's 502 is 503 to the client, and in the log: error_page of the role nginx_lb.
            _share("502|503", "bad_gateway_ratio"),
            "The front door finds no server of {{ $labels.model }} that takes requests",
            "{{ $value | humanizePercentage }} of the requests for {{ $labels.model }} end with 502 or 503.",
        ),
        Alert(
            "FrontDoorGatewayTimeout", "page", "5m",
            _share("504", "gateway_timeout_ratio"),
            "Servers of {{ $labels.model }} do not answer in time",
            "{{ $value | humanizePercentage }} of the requests for {{ $labels.model }} end with 504.",
        ),
        Alert(
            "FrontDoorServersDown", "ticket", "5m",
            '1 - avg by (model) (up{job="vllm"}) >= <servers_down_ratio> and on (model) sum by (model)'
            ' (up{job="vllm"}) > 0 or 1 - avg by (model) (gpuhosts_server_in_service) >= <servers_down_ratio>'
            " and on (model) sum by (model) (gpuhosts_server_in_service) > 0",
            "Few servers are left of {{ $labels.model }}",
            "{{ $value | humanizePercentage }} of the servers of {{ $labels.model }} are down, or do not answer the"
            " front door.",
        ),
        Alert(
            "FrontDoorDrainedTooLong", "ticket", "5m",
            "(time() - gpuhosts_server_drained_since_timestamp_seconds) / 3600 > <drained_hours>",
            "{{ $labels.server }} is still drained",
            'The front door of {{ $labels.host }} has sent {{ $labels.server }} nothing for {{ $value | printf'
            ' "%.0f" }} hours'
            " ({{ $labels.reason }}).",
        ),
        Alert(
            "FrontDoorCertificateExpires", "ticket", "1h",
            "(gpuhosts_certificate_expiry_timestamp_seconds - time()) / 86400 < <certificate_days>",
            "A certificate of {{ $labels.host }} expires",
            '{{ $labels.path }} is valid for {{ $value | printf "%.0f" }} more days.',
        ),
        Alert(
            "FrontDoorCertificateExpired", "page", "5m",
            "(gpuhosts_certificate_expiry_timestamp_seconds - time()) / 86400 < <certificate_page_days>",
            "A certificate of {{ $labels.host }} is about to expire, or has",
            '{{ $labels.path }} is valid for {{ $value | printf "%.1f" }} more days. Clients refuse it from then on.',
        ),
        Alert(
            "FrontDoorLogUnreadable", "ticket", "10m",
            "increase(gpuhosts_front_door_unreadable_lines_total[15m]) > 0",
            "The log of the front door of {{ $labels.host }} is not what it should be",
            "{{ $value }} lines of NGINX's log were no JSON of a request: numbers about the front door are too low.",
        ),
    ),
)  # fmt: skip
