"""The filter with which roles read their tables of what differs between distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.platform import filled, find_platform, resolve


def platform_row(
    platforms: Mapping[str, Any], facts: Mapping[str, Any], texts: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a role's table says of the host with these facts; {} where it says nothing.

    With ``texts``, these and the row's own are put in the place of their names in braces.
    """
    row = resolve(platforms, find_platform(facts["distribution"], facts["distribution_version"])[0])
    own = {name: text for name, text in row.items() if isinstance(text, str)}
    return dict(filled(row, {**own, **texts})) if texts else row


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filter by name."""
        return {"platform_row": platform_row}
