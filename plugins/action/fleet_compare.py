"""What the engines report, held against what the plan promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.effective import compared, comparison_table, with_effective
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.plan_files import effective_files


class ActionModule(Decision):
    """Runs on the controller, where the plan is."""

    SPEC: ClassVar = {
        "plan": {"type": "dict", "required": True},
        "reports": {"type": "list", "elements": "dict", "required": True},
        "date": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "dict", "default": []},
    }

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The comparison, as lines and as files."""
        running = with_effective(given["plan"], given["reports"])
        entries = compared(running, given["date"])
        files = effective_files(running, entries, given["hosts"])
        return {"comparison": entries, "table": comparison_table(entries), "files": files}
