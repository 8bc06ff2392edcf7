"""What alerts, recording rules and thresholds are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Alert", "Area", "Record", "Threshold"]


@dataclass(frozen=True)
class Threshold:
    """A number that an operator may set; ``among``, where only these will do."""

    default: float
    least: float
    most: float
    about: str
    among: tuple[float, ...] = ()


@dataclass(frozen=True)
class Record:
    """A series that Prometheus computes for alerts and dashboards; ``<NAME>`` in ``expr`` is a threshold."""

    name: str
    expr: str


@dataclass(frozen=True)
class Alert:
    """A condition and what people are told of it.

    ``<NAME>`` in ``expr`` and ``description`` is a threshold. ``severity`` is ``page`` (now, at night as well),
    ``ticket`` (this week) or ``info`` (read when something else is wrong).
    """

    name: str
    severity: str
    after: str
    expr: str
    summary: str
    description: str


@dataclass(frozen=True)
class Area:
    """Rules that are evaluated together, in this order."""

    name: str
    title: str  # for people
    alerts: tuple[Alert, ...]
    records: tuple[Record, ...] = field(default=())
