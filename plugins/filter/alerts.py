"""Filters that make Prometheus' rules of thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.alerts import groups, mistakes


def alert_rules(thresholds: Mapping[str, Any], runbook_base: str) -> dict[str, Any]:
    """Rules as Prometheus reads them."""
    try:
        return groups(thresholds, runbook_base)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {"alert_rules": alert_rules, "threshold_mistakes": mistakes}
