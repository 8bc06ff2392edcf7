"""The doctor's verdict on what was read of hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.doctor import diagnosis, table


class ActionModule(Decision):
    """Runs on the controller, where the results are."""

    SPEC: ClassVar = {"looks": {"type": "dict", "required": True}}

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The verdict, for programs and for people."""
        verdict = diagnosis(given["looks"])
        return {"verdict": verdict, "table": table(verdict)}
