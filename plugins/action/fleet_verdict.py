"""The verdict on what probes of the fleet found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.modules.fleet_verdict import SPEC
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.verdict import verdict


class ActionModule(Decision):
    """Runs on the controller, where the results are."""

    SPEC = SPEC

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict."""
        return {"verdict": verdict(given["completions"], given["targets"], given["unreachable"])}
