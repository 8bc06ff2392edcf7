"""What is done to the fleet, and the alerts that it is to cause; docs/alerts/README.md is made from this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from . import fleet
from .fleet import CACHE, DOWN, FLAKY, FRONT_DOOR, FULL, GPU1, GPU2, MONITOR, PAIR, SLOW, STUCK, Clients, fault, shell

_TARGETS = "/etc/prometheus/targets"


@dataclass(frozen=True)
class Provocation:
    """What is done, in words and as it is, and the names of the alerts."""

    what: str
    do: Callable[[Clients], None]
    alerts: tuple[str, ...]


def _unit(model: str) -> str:
    return f"vllm@{model}-1.service"


def _kill(host: str, unit: str, signal: str) -> None:
    """The engine, which is the only child of its keeper."""
    shell(host, f"pkill -{signal} --parent $(systemctl show --value --property MainPID {unit})")


def _set(model: str, variable: str) -> None:
    """For the engine's next start."""
    shell(GPU1, f"echo {variable} >> /etc/vllm/instances/{model}-1.env")


def _down(clients: Clients) -> None:
    clients.begin(10, DOWN)
    _set(DOWN, "STAND_IN_START_FAULT=oom")
    _kill(GPU1, _unit(DOWN), "KILL")


def _one_of_two(_: Clients) -> None:
    address = fleet.engines()[f"{PAIR}-1"][0]
    host = next(name for name in (GPU1, GPU2) if fleet.ADDRESS[name] == address)
    _kill(host, _unit(PAIR), "STOP")


def _slow(clients: Clients) -> None:
    clients.begin(30, SLOW, every=0.1, over=11, stand_in={"token_seconds": 11})


def _leave(clients: Clients) -> None:
    clients.begin(5, SLOW, every=0.1, seconds=1, stand_in={"token_seconds": 11})


def _full(clients: Clients) -> None:
    clients.begin(40, FULL, stand_in={"token_seconds": 5})


def _cache(clients: Clients) -> None:
    """Twelve requests fill 348 of 360 blocks and stay; of eight others, some lose their place again and again."""
    _set(CACHE, f"STAND_IN_KV_TOKENS={360 * 16}")
    shell(GPU1, f"systemctl restart {_unit(CACHE)}")
    place = fleet.engines()[f"{CACHE}-1"]
    clients.begin(12, CACHE, place, seconds=300, prompt="word " * 455, stand_in={"token_seconds": 300})
    clients.begin(8, CACHE, place, every=0.1, max_tokens=40, stand_in={"token_seconds": 0.02})


def _stuck(clients: Clients) -> None:
    fault(f"{STUCK}-1", "hang")
    clients.begin(20, STUCK, over=20)


def _flaky(clients: Clients) -> None:
    fault(f"{FLAKY}-1", "error")
    clients.begin(5, FLAKY)


def _exporter(_: Clients) -> None:
    shell(FRONT_DOOR, "systemctl stop prometheus-nginx-exporter")


def _certificate(_: Clients) -> None:
    fleet.certify(-timedelta(hours=1))


def _drained(_: Clients) -> None:
    fleet.drain("{}:{}".format(*fleet.engines()[f"{PAIR}-2"]))


def _log(_: Clients) -> None:
    shell(FRONT_DOOR, "echo no JSON >> /var/log/nginx/access.log")


def _address(_: Clients) -> None:
    """One that no host holds; the fleet has none."""
    settings = "/etc/gpuhosts/metrics.json"
    shell(FRONT_DOOR, f'sed -i \'/front_address/s/""/"192.0.2.1"/\' {settings} && systemctl restart gpuhosts-metrics')


def _targets(_: Clients) -> None:
    shell(MONITOR, f"echo '[]' | tee {_TARGETS}/vllm.yml {_TARGETS}/nginx.yml")


# All at once.
PROVOCATIONS = (
    Provocation(
        "An engine is killed and meets CUDA's lack of memory whenever it starts again, while clients ask",
        _down,
        ("EngineModelDown", "EngineStartsFail", "EngineNotServing", "EngineRestarts", "FrontDoorBadGateway",
         "EngineAvailabilityBurnFast", "EngineAvailabilityBurnSlow"),
    ),
    Provocation("One of two engines stands still (SIGSTOP)", _one_of_two, ("EngineDown", "FrontDoorServersDown")),
    Provocation(
        "Answers begin after 11 s", _slow, ("EngineTtftBurnFast", "EngineTtftBurnSlow", "FrontDoorFirstByteSlow")
    ),
    Provocation("Clients hang up after a second", _leave, ("FrontDoorClientsLeave",)),
    Provocation("More requests come than the queue takes", _full, ("EngineQueue", "EngineRejections")),
    Provocation(
        "The KV cache is small, and requests fill it",
        _cache,
        ("EngineKvCacheFull", "EnginePreemptions", "EngineKvCacheBelowPlan"),
    ),
    Provocation("An engine hangs with requests", _stuck, ("EngineStalled", "FrontDoorGatewayTimeout")),
    Provocation("An engine ends requests with an error", _flaky, ("EngineErrorRatio",)),
    Provocation("The exporter of NGINX is stopped", _exporter, ("FrontDoorDown",)),
    Provocation(
        "The certificate has expired", _certificate, ("FrontDoorCertificateExpires", "FrontDoorCertificateExpired")
    ),
    Provocation("A server stays drained", _drained, ("FrontDoorDrainedTooLong",)),
    Provocation("Nobody holds the address of the load balancers", _address, ("FrontDoorAddressHolders",)),
    Provocation("NGINX's log has a line that is no JSON", _log, ("FrontDoorLogUnreadable",)),
)  # fmt: skip

# After that, because nothing else can be seen without targets.
LAST = (
    Provocation(
        "Prometheus loses its targets",
        _targets,
        ("EngineVanished", "EngineTargetsAbsent", "FrontDoorVanished", "PrometheusJobVanished"),
    ),
)

PROVOKED = {alert: one.what for one in (*PROVOCATIONS, *LAST) for alert in one.alerts}
