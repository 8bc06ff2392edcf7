"""Nested settings, one on top of the other; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["merged"]


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``top`` on it: mappings are merged key by key, all else is replaced, the order of ``base`` kept."""
    made = dict(base)
    for key, value in top.items():
        under = made.get(key)
        made[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return made
