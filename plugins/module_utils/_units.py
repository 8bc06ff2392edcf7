"""Units of memory, in bytes; private to the collection."""

from __future__ import annotations

__all__ = ["GIB", "MIB"]

GIB = 1 << 30
MIB = 1 << 20
