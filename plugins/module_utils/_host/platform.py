"""Tables of what differs between distributions: one shape for every role; private to the collection.

A table has a record by distribution and release, such as "Debian 12" and "Ubuntu 24.04". A record that is ``like``
another one has all that the other one has, but for what it says itself. Its texts may have placeholders: ``{name}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .merge import merged

__all__ = ["filled", "find_platform", "resolve"]


def find_platform(distribution: str, version: str) -> tuple[str, str]:
    """Key in a table of platforms, and release, as in ("Ubuntu 24.04", "24.04"). The table may not have it."""
    release = version if distribution == "Ubuntu" else version.partition(".")[0]
    return f"{distribution} {release}", release


def resolve(platforms: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table of a platform, with what it has from the one that it is ``like``; {} for an unknown one."""
    own = dict(platforms.get(name, {}))
    parent = own.pop("like", None)
    return merged(resolve(platforms, parent), own) if parent else own


def filled(value: Any, texts: Mapping[str, str]) -> Any:
    """A table with the texts in the place of their names in braces; other braces stay."""
    if isinstance(value, Mapping):
        return {key: filled(one, texts) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, texts) for one in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\{(\w+)\}", lambda match: texts.get(match[1], match[0]), value)
