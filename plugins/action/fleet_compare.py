"""What the engines report, held against what the plan promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.modules.fleet_compare import SPEC
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.effective import compared, comparison_table, with_effective
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.plan_files import effective_files


class ActionModule(Decision):
    """Runs on the controller, where the plan is."""

    SPEC = SPEC

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The comparison, as lines and as files."""
        running = with_effective(given["plan"], given["reports"])
        entries = compared(running, given["date"])
        files = effective_files(running, entries, given["hosts"])
        return {"comparison": entries, "table": comparison_table(entries), "files": files}
