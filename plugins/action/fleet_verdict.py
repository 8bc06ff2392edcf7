"""The verdict on what probes of the fleet found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.verdict import verdict


class ActionModule(Decision):
    """Runs on the controller, where the results are."""

    SPEC: ClassVar = {
        "completions": {"type": "list", "elements": "dict", "required": True},
        "targets": {"type": "list", "elements": "dict", "default": []},
        "unreachable": {"type": "list", "elements": "str", "default": []},
    }

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict."""
        return {"verdict": verdict(given["completions"], given["targets"], given["unreachable"])}
