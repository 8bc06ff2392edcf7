"""The filter with which roles read their tables of what differs between distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.platform import find_platform, resolve


def platform_row(platforms: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a role's table says of the host with these facts; {} where it says nothing."""
    return resolve(platforms, find_platform(facts["distribution"], facts["distribution_version"])[0])


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filter by name."""
        return {"platform_row": platform_row}
