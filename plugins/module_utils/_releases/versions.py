"""Versions of vLLM; private to the collection."""

from __future__ import annotations

import re

__all__ = ["DEFAULT_VERSION", "PAIRED_OPTIONS_SINCE", "parse_version"]

DEFAULT_VERSION = "0.33.0"  # what the role vllm installs, unless the inventory says otherwise
# From this (major, minor) on, vLLM also calls the opposite of --enable-x --disable-x, and the other way round.
PAIRED_OPTIONS_SINCE = (0, 33)


def parse_version(text: str | None) -> tuple[int, int, int] | None:
    """(major, minor, patch) of a version as people write it (``0.19.1``, ``v0.33.0``); None when it is none.

    A version without a patch number (``0.11``, ``0.11.x``) means the last of them: 99.
    """
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text or "")
    return (int(found.group(1)), int(found.group(2)), int(found.group(3) or 99)) if found else None
