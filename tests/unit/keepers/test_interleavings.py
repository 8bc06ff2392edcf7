"""Whatever happens, in whatever order: no epoch runs beside another, and in the end an engine answers."""

from __future__ import annotations

from typing import Any

import pytest
from keeper_protocol import Keeper

from .world import FAULTS, World

SEEDS = 1000
MUTANT_SEEDS = 300
START = 120.0  # seconds of the simulation until the engine answers for the first time
HEAL = 200.0  # ... after the last fault; what takes longest are an engine that hangs at its start, and the pauses
CALM = 30.0  # ... that it serves on, when all faults are over


def live(world: World) -> str:
    """One life of an instance with one to four faults; what is wrong, "" for nothing.

    The world itself looks at every start of an engine whether there may be one.
    """
    try:
        if not world.run(world.healthy, START):
            return "does not start"
        for _ in range(world.random.randint(1, 4)):
            world.fault()
            world.run(lambda: False, world.random.choice([0.0, 0.5, 3.0, 12.0]))
        world.run(lambda: False, CALM)  # the longest fault is over
        if not world.run(world.healthy, HEAL):
            return "does not heal"
        if world.run(lambda: not world.healthy(), CALM):
            return "does not stay"
    except AssertionError as error:
        return str(error).splitlines()[0]
    return ""


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_no_epoch_runs_beside_another_and_every_fault_heals(nodes: int) -> None:
    lives = 0
    for seed in range(SEEDS):
        world = World(seed, nodes)
        wrong = live(world)
        assert not wrong, "\n".join([f"seed {seed}: {wrong}", *world.log[-80:]])
        lives += sum(host.life for host in world.hosts)
    assert lives > SEEDS * nodes * 1.5, "the faults must end epochs"


def test_every_fault_is_among_them() -> None:
    assert len(FAULTS) == 8
    seen = "".join(line for seed in range(30) for world in [World(seed, 2)] if not live(world) for line in world.log)
    assert all(f"FAULT {name}" in seen for name in FAULTS)


class Survivor(Keeper):
    """Lives on when another node dies."""

    def _gone(self, *_: Any, **__: Any) -> None:
        pass


class Hasty(Keeper):
    """Announces an epoch whoever is there."""

    def _gather(self, now: float) -> None:
        epoch = int(self._wall() * 1000)
        self._tell(start=epoch)
        self._start(epoch, now)


class Trusting(Keeper):
    """Takes an engine for sound that says it is healthy."""

    def _watch(self, url: str, now: float) -> None:
        self._alive = now
        super()._watch(url, now)


class Eager(Keeper):
    """A worker that starts its engine as soon as it is welcome."""

    def heard(self, link: int, message: dict[str, Any], now: float) -> None:
        super().heard(link, message, now)
        if "welcome" in message and self.state == "waiting":
            self._start(int(self._wall() * 1000), now)


@pytest.mark.parametrize("kind", [Survivor, Hasty, Trusting, Eager])
def test_a_keeper_that_forgets_a_rule_is_found_out(kind: type[Keeper]) -> None:
    assert any(live(World(seed, 2, kind=kind)) for seed in range(MUTANT_SEEDS))


def test_a_systemd_that_starts_before_it_has_killed_is_found_out() -> None:
    found = [live(World(seed, 2, kills=False)) for seed in range(20)]
    assert any(wrong.startswith("an engine of") for wrong in found)
