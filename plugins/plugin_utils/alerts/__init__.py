"""Alerts and recording rules as data, and as what Prometheus reads; the controller's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .engine import ENGINE, MODELS, OBJECTIVES, RAY
from .front_door import FRONT_DOOR
from .gpu import GPU
from .host import HOST, PROMETHEUS
from .kinds import Alert, Area
from .thresholds import THRESHOLDS, merged, mistakes

__all__ = ["ALERTS", "AREAS", "THRESHOLDS", "groups", "mistakes", "thresholds_in"]

AREAS = (MODELS, OBJECTIVES, ENGINE, RAY, FRONT_DOOR, GPU, HOST, PROMETHEUS)
ALERTS = {alert.name: alert for area in AREAS for alert in area.alerts}

_PLACE = re.compile(r"<([a-z]\w*)>")
_WINDOW = re.compile(r"\[(\d+[smhd])\]")
_IN_SECONDS = re.compile(r"<(\d+[smhd]) in seconds>")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds


def thresholds_in(text: str) -> list[str]:
    """The names of the thresholds that a text has places for."""
    return sorted(set(_PLACE.findall(text)))


def groups(thresholds: Mapping[str, Any], runbook_base: str) -> dict[str, Any]:
    """All rules as a file of Prometheus has them, with ``thresholds`` over the defaults.

    Raises:
        ValueError: a threshold that there is not, or a value that it cannot have; the message says which and what to do

    """
    if wrong := mistakes(thresholds):
        raise ValueError(" ".join(wrong))
    values = merged(thresholds)
    return {"groups": [_group(area, values, runbook_base.rstrip("/")) for area in AREAS]}


def _group(area: Area, values: Mapping[str, float], runbook_base: str) -> dict[str, Any]:
    records: list[dict[str, Any]] = [{"record": one.name, "expr": _filled(one.expr, values)} for one in area.records]
    return {
        "name": f"gpuhosts_{area.name}",
        "rules": records + [_alert(one, values, runbook_base) for one in area.alerts],
    }


def _alert(alert: Alert, values: Mapping[str, float], runbook_base: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": _filled(alert.expr, values),
        "for": _shorter(alert.after, values),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": _filled(alert.description, values),
            "runbook_url": f"{runbook_base}/{alert.name}.md",
        },
    }


def _filled(text: str, values: Mapping[str, float]) -> str:
    # A bucket is named as vLLM names it (`1.0`), and as Prometheus 3 does.
    text = re.sub(r'le="<(\w+)>"', lambda place: f'le="{float(values[place[1]])!r}"', text)
    text = _WINDOW.sub(lambda window: f"[{_shorter(window[1], values)}]", text)
    text = _IN_SECONDS.sub(lambda window: f"{_seconds(window[1]) / values['drill']:.10g}", text)
    return _PLACE.sub(lambda place: f"{values[place[1]]:.10g}", text)


def _shorter(duration: str, values: Mapping[str, float]) -> str:
    """As long as a drill lets it be, to a thousandth of a second."""
    speed = values["drill"]
    return duration if speed == 1 else f"{round(1000 * _seconds(duration) / speed)}ms"


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]
