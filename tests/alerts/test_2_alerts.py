"""Every alert of an engine and of the front door, provoked, seen in Prometheus and Alertmanager, and told."""

from __future__ import annotations

import concurrent.futures
import time
import urllib.request

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.alerts import ALERTS

from .fleet import ALERTMANAGER, Clients, clients
from .provocations import LAST, PROVOCATIONS, PROVOKED, Provocation
from .test_1_planned_work import silences
from .watch import Seen, Watch

SECONDS = 480  # the longest `for` is an hour, 2 minutes in a drill; a busy machine is late with all else


def provoke(watch: Watch, table: tuple[Provocation, ...], those: Clients) -> Seen:
    """Do all of it at once, and wait until every alert was told."""
    expected = {alert for one in table for alert in one.alerts}
    seen = watch.anew()
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: one.do(those), table))
    watch.wait(lambda now: expected <= now.everywhere(), SECONDS)
    print(f"{len(expected & seen.everywhere())} of {len(expected)} after {time.monotonic() - started:.0f} s")
    return seen


@pytest.fixture(scope="module")
def seen(watch: Watch) -> set[str]:
    """What was seen everywhere. Silences of planned work, which last a moment longer, end before."""
    for silence in silences():
        request = urllib.request.Request(f"{ALERTMANAGER}/api/v2/silence/{silence}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()
    with clients() as those:
        first = provoke(watch, PROVOCATIONS, those)
        last = provoke(watch, LAST, those)
    others = (set(first.told) | set(last.told)) - set(PROVOKED)
    print(f"told besides: {sorted(others)}")
    return first.everywhere() | last.everywhere()


@pytest.mark.parametrize("alert", PROVOKED)
def test_an_alert_fires_and_is_told(seen: set[str], alert: str) -> None:
    assert alert in seen


def test_all_of_engines_and_the_front_door_are_provoked() -> None:
    assert {name for name in ALERTS if name.startswith(("Engine", "FrontDoor"))} <= set(PROVOKED)
