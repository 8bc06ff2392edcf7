"""What an alert is tried with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Case"]

KINDS = ("fires", "does not fire", "no traffic", "target vanished")
_AFTER = 10  # minutes that series go on after the last question

Series = Mapping[str, str]  # what is scraped -> its values in promtool's notation; the last one goes on to the end


@dataclass(frozen=True)
class Case:
    """An alert with its series; all times are in minutes."""

    alert: str
    at: int  # when it fires
    fires: Series
    labels: Mapping[str, str]  # of the alert that fires, besides its name and severity
    quiet: Series  # what is different when it does not fire
    idle: Series = field(default_factory=dict)  # what is different without traffic, besides counters that stand still
    gone: tuple[str, ...] | None = None  # which series go with the target that vanishes; None: all
    gone_after: int = 130  # how long after, when nothing fires any more ...
    when_gone: int = 0  # ... or as many as this
    step: int = 1  # between two scrapes, and two evaluations

    def tests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What promtool is to try, each under one of KINDS."""
        idle = {name: value.partition("+")[0] for name, value in self.fires.items()} | dict(self.idle)
        if idle == self.fires:
            idle = {}  # a state that has nothing to do with traffic: there is nothing at all
        later = self.at + self.gone_after
        gone = self.fires if self.gone is None else self.gone
        vanished = {
            name: f"{self._until(self.at, value)} stale" if name in gone else self._until(later + _AFTER, value)
            for name, value in self.fires.items()
        }
        labels = {"alertname": self.alert, "alertstate": "firing", **self.labels}
        yield "fires", self._test(self._all(self.fires), self.at, 1, labels)
        yield "does not fire", self._test(self._all({**self.fires, **self.quiet}), self.at, 0)
        yield "no traffic", self._test(self._all(idle), self.at, 0)
        yield "target vanished", self._test(vanished, later, self.when_gone)

    def _all(self, series: Series) -> Series:
        return {name: self._until(self.at + _AFTER, value) for name, value in series.items()}

    def _until(self, minutes: int, value: str) -> str:
        """Values of which the last goes on until then, unless it says how long."""
        last = value.rpartition(" ")[2]
        return value if "x" in last or last == "stale" else f"{value}x{minutes // self.step}"

    def _test(self, series: Series, at: int, number: int, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        firing = f'ALERTS{{alertname="{self.alert}",alertstate="firing"}}'
        expected = [(f"count({firing})", [{"labels": "{}", "value": number}] if number else [])]
        if labels:
            text = ", ".join(f'{name}="{value}"' for name, value in labels.items())
            expected.append((firing, [{"labels": f'ALERTS{{{text}, severity="SEVERITY"}}', "value": 1}]))
        return {
            "interval": f"{self.step}m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {"expr": expr, "eval_time": f"{at}m", "exp_samples": samples} for expr, samples in expected
            ],
        }
