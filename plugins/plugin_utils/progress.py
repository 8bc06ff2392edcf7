"""How far a download is, in a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["line"]

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))  # as networks and disks are sold
SLOWEST = 1000  # bytes a second; below it nobody can say how long it takes


def line(host: str, status: Mapping[str, Any]) -> str:
    """One line on what ``model_fetch`` returns as ``status``; what is done already is left out."""
    models = [model for model in status["models"] if model["done"] < model["total"]]
    parts = [f"{model['place']} {model['done'] / model['total']:.0%} of {_size(model['total'])}" for model in models]
    left = sum(model["total"] - model["done"] for model in models)
    rate = status["rate"]
    speed = [f"{_size(rate)}/s", f"{_duration(left / rate)} left"] if rate >= SLOWEST and models else []
    return f"{host}: {', '.join([*parts, *speed]) or 'puts the files into their place'}"


def _size(number: float) -> str:
    divisor, unit = next((entry for entry in UNITS if number >= entry[0]), UNITS[-1])
    return f"{number / divisor:.1f} {unit}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
