"""Planned work makes alerts fire in Prometheus, thirty times sooner than usual, and nobody is told of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.lab.vendor.nvidia import VERSIONS

from . import fleet
from .fleet import ALERTMANAGER, GPU2, PAIR
from .watch import Seen, Watch, about

SILENCE_AFTER = timedelta(seconds=120)  # roles/maintenance: until what is there again has been scraped


def silences() -> dict[str, datetime]:
    """The ends of those that are not over, by their ids."""
    entries = fleet.get(f"{ALERTMANAGER}/api/v2/silences")
    there = [entry for entry in entries if entry["status"]["state"] != "expired"]
    return {entry["id"]: datetime.fromisoformat(entry["endsAt"]) for entry in there}


@pytest.fixture
def seen(watch: Watch) -> Seen:
    return watch.anew()


def judge(seen: Seen, expected: set[str], host: str = "") -> None:
    """These would have been told of; nothing about the work was, and the silences are about to end."""
    print(f"silenced: {sorted(seen.suppressed)}")
    for place in (seen.active, seen.told):
        assert [labels for alerts in place.values() for labels in alerts if about(labels, host)] == []
    assert expected <= set(seen.firing) & set(seen.suppressed)
    ends = silences().values()
    assert ends
    assert max(ends) <= datetime.now(UTC) + SILENCE_AFTER


def test_site_deploys_and_all_is_quiet(watch: Watch) -> None:
    run = fleet.site()
    assert run.code == 0
    assert watch.wait(lambda _: len(fleet.engines()) == len(fleet.models()) + 1, 60)
    assert watch.wait(lambda _: not fleet.firing(), 180)
    assert silences() == {}


def test_a_changed_option_fires_nothing(seen: Seen) -> None:
    run = fleet.run("playbooks/site.yml", "--tags", "serve", STAND_IN_START_SECONDS="10")
    assert run.code == 0
    assert f"restart {PAIR}-1" in run.text
    judge(seen, {"EngineDown"})


def test_a_driver_upgrade_fires_nothing(seen: Seen) -> None:
    upgrade = ("playbooks/driver_upgrade.yml", "-e", f"nvidia_driver_version={VERSIONS[0]}")
    # Of the host that is left alone, the other models have no second engine.
    only = ("-e", f"driver_upgrade_hosts={GPU2}", "-e", "driver_upgrade_outage=true")
    run = fleet.run(*upgrade, *only, STAND_IN_START_SECONDS="10")
    assert run.code == 0
    assert GPU2 in run.changed
    judge(seen, {"EngineDown", "FrontDoorServersDown"}, GPU2)
