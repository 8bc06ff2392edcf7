"""What a query in PromQL reads: names of series and the labels that it asks of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

_TEXT = re.compile(r'"(?:\\.|[^"\\])*"')
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?(\s*\()?")
_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")
_NUMBER = re.compile(r"(?<![a-zA-Z0-9_:])\d+(\.\d+)?(e[+-]?\d+|[smhdwy])?")
_MADE = re.compile(r'(?:count_values\s*(?:by\s*\([^)]*\)\s*)?\(|label_(?:replace|join)\([^"]*)\s*"(\w+)"')
_WORDS = {"and", "or", "unless", "bool", "offset", "Inf", "NaN", "atan2", "start", "end"}
# Prometheus makes these itself, of what it scrapes and of its rules.
MADE_BY_PROMETHEUS = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
}
# Of the targets: the filters scrape_targets and host_targets.
OF_TARGETS = {"job", "instance", "host", "model", "instance_id"}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A series' name, and labels that the query has matchers for."""

    name: str
    labels: frozenset[str]


def readings(expression: str) -> Iterator[Reading]:
    """Every series that a query names."""
    text = _GROUPING.sub(" ", _RANGE.sub("", _TEXT.sub('""', expression)))
    for name, matchers, call in _SELECTOR.findall(_NUMBER.sub(" ", text)):
        if not call and name not in _WORDS:
            yield Reading(name, frozenset(_LABEL.findall(matchers)))


def groupings(expression: str) -> set[str]:
    """Every label that a query groups or joins by."""
    lists = [labels for _, labels in _GROUPING.findall(_TEXT.sub('""', expression))]
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}


def written(expression: str) -> set[str]:
    """Labels that a query makes itself."""
    return set(_MADE.findall(expression))


def series(exposition: str) -> Iterator[tuple[str, set[str]]]:
    """Name and labels of every sample of an exposition."""
    for line in exposition.splitlines():
        if line and not line.startswith("#"):
            name, _, labels = _TEXT.sub('""', line).partition("{")
            yield name.split()[0], set(_LABEL.findall(labels)) if labels else set()


def known(expositions: Iterable[str]) -> dict[str, set[str]]:
    """Labels by name of series, of all expositions, with those that Prometheus adds."""
    found: dict[str, set[str]] = {name: labels | OF_TARGETS for name, labels in MADE_BY_PROMETHEUS.items()}
    for exposition in expositions:
        for name, labels in series(exposition):
            found.setdefault(name, set(OF_TARGETS)).update(labels)
    # dcgm-exporter gives all of a GPU's series the same labels; recordings of different ages differ.
    ours = set().union(*(labels for name, labels in found.items() if name.startswith("DCGM_")))
    return {name: labels | ours if name.startswith("DCGM_") else labels for name, labels in found.items()}


def unknown(expression: str, names: dict[str, set[str]]) -> list[str]:
    """What a query asks for that nothing known has, as sentences."""
    read = list(readings(expression))
    if missing := [f"no series {one.name}" for one in read if one.name not in names]:
        return missing
    labels = set().union(*(names[one.name] for one in read))
    return [
        *(f"{one.name} has no label {label}" for one in read for label in sorted(one.labels - names[one.name])),
        *(f"no series of it has the label {label}" for label in sorted(groupings(expression) - labels)),
    ]
