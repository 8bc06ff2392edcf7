"""Metrics as text, as Prometheus and node_exporter's textfile collector read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Metrics", "labels_of", "samples"]

_SAMPLE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}


@dataclass
class Metrics:
    """Families of metrics in the order in which they were begun."""

    families: dict[str, list[str]] = field(default_factory=dict)

    def family(self, name: str, kind: str, about: str) -> None:
        """Begin a family, or go on with it."""
        self.families.setdefault(name, [f"# HELP {name} {about}", f"# TYPE {name} {kind}"])

    def add(
        self, name: str, value: float | None, labels: Mapping[str, object] | None = None, *, suffix: str = ""
    ) -> None:
        """A sample of a family that was begun; None is no sample."""
        if value is not None:
            shown = ",".join(f'{key}="{_escaped(str(one))}"' for key, one in (labels or {}).items())
            self.families[name].append(
                f"{name}{suffix}{{{shown}}} {value:.17g}" if shown else f"{name}{suffix} {value:.17g}"
            )

    def gauge(self, name: str, about: str, value: float | None, labels: Mapping[str, object] | None = None) -> None:
        """One sample of a gauge."""
        self.family(name, "gauge", about)
        self.add(name, value, labels)

    def text(self) -> str:
        """All families that have samples."""
        families = (lines for lines in self.families.values() if len(lines) > 2)
        return "".join(f"{line}\n" for lines in families for line in lines)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(one, one) for one in text)


def samples(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and values of all samples of one name; a line that is none is passed over."""
    for line in text.splitlines():
        match = _SAMPLE.match(line) if line.startswith(name) else None
        if match and match["name"] == name:
            try:
                yield labels_of(match["labels"] or ""), float(match["value"])
            except ValueError:
                continue


def labels_of(text: str) -> dict[str, str]:
    """What stands between the braces of a sample."""
    return {
        key: re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), raw) for key, raw in _LABEL.findall(text)
    }
