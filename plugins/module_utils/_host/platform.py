"""Tables of what differs between distributions: one shape for every role; private to the collection.

A table has a record by distribution and release, such as "Debian 12" and "Ubuntu 24.04". A record that is ``like``
another one has all that the other one has, but for what it says itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .merge import merged

__all__ = ["find_platform", "resolve"]


def find_platform(distribution: str, version: str) -> tuple[str, str]:
    """Key in a table of platforms, and release, as in ("Ubuntu 24.04", "24.04"). The table may not have it."""
    release = version if distribution == "Ubuntu" else version.partition(".")[0]
    return f"{distribution} {release}", release


def resolve(platforms: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table of a platform, with what it has from the one that it is ``like``; {} for an unknown one."""
    own = dict(platforms.get(name, {}))
    parent = own.pop("like", None)
    return merged(resolve(platforms, parent), own) if parent else own
