"""What has to be done to a service so that it runs from its new files; pure, private to the collection."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["PROPERTIES", "State", "steps"]

PROPERTIES = "ActiveState,UnitFileState"  # what State is made of


@dataclass(frozen=True)
class State:
    """A unit, as systemd tells it."""

    runs: bool
    enabled: bool  # starts at boot

    @classmethod
    def from_properties(cls, output: str) -> State:
        """Read the output of ``systemctl show --property=`` with PROPERTIES."""
        values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        runs = values.get("ActiveState") in ("active", "reloading")
        return cls(runs, values.get("UnitFileState", "").startswith("enabled"))


def steps(state: State, taken_up_by: Collection[str]) -> list[str]:
    """Verbs of systemctl, in their order.

    :param taken_up_by: of every file that has changed: restart, reload, or nothing for one that the service watches.
    """
    verbs = [] if state.enabled else ["enable"]
    if not state.runs:
        return [*verbs, "start"]
    if "restart" in taken_up_by:
        return [*verbs, "restart"]
    return [*verbs, "reload"] if "reload" in taken_up_by else verbs
