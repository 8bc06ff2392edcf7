"""What has to be done to a service so that it runs from its new files; pure, private to the collection.

A service that is older than one of its files runs from older ones, whoever wrote it and however the run ended that did:
nothing has to be remembered for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PROPERTIES", "State", "steps"]

# What State is made of. A reload ends in a change of state, too; both are counted from the boot on.
PROPERTIES = "ActiveState,UnitFileState,NeedDaemonReload,InactiveExitTimestampMonotonic,StateChangeTimestampMonotonic"


@dataclass(frozen=True)
class State:
    """A unit, as systemd tells it."""

    runs: bool
    enabled: bool  # starts at boot
    outdated: bool = False  # systemd has not read what its files say now
    started: float = 0  # in seconds since the boot
    reloaded: float = 0  # or started, whichever was last

    @classmethod
    def from_properties(cls, output: str) -> State:
        """Read the output of ``systemctl show --property=`` with PROPERTIES."""
        values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return cls(
            runs=values.get("ActiveState") in ("active", "reloading"),
            enabled=values.get("UnitFileState", "").startswith("enabled"),
            outdated=values.get("NeedDaemonReload") == "yes",
            started=int(values.get("InactiveExitTimestampMonotonic") or 0) / 1e6,
            reloaded=int(values.get("StateChangeTimestampMonotonic") or 0) / 1e6,
        )

    def has_taken_up(self, written: float, taken_up_by: str) -> bool:
        """Whether a service that runs has come to know a file.

        :param written: when that was, in seconds since the boot.
        """
        return written <= {"restart": self.started, "reload": self.reloaded}.get(taken_up_by, written)


def steps(state: State, taken_up_by: Iterable[str]) -> list[str]:
    """Verbs of systemctl, in their order.

    :param taken_up_by: of every file that the service has to take up: restart, reload, or nothing for one that it
        watches.
    """
    needs = set(taken_up_by)
    verbs = [] if state.enabled else ["enable"]
    if not state.runs:
        return [*verbs, "start"]
    if "restart" in needs:
        return [*verbs, "restart"]
    return [*verbs, "reload"] if "reload" in needs else verbs
