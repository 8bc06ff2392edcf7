"""Filters that say which host fetches which model from where."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.distribution import distribution, origins


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {"model_distribution": distribution, "model_origins": origins}
