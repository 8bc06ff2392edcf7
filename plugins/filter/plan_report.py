"""The filter that turns a fleet plan into a page to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.report import render


def plan_report(plan: Mapping[str, Any], hosts: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page for a plan; ``hosts`` add the hardware and what is free on it.

    :raises AnsibleFilterError: this is not a fleet plan, or these are not hosts.
    """
    try:
        return render(plan, hosts)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(
            f"plan_report wants a fleet plan and its hosts; this is something else: {error!r}"
        ) from error


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filter by name."""
        return {"plan_report": plan_report}
