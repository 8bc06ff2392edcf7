"""What the hosts tell of the fleet at this moment, put together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.status import overview
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.status_table import table


class ActionModule(Decision):
    """Runs on the controller, where the results are."""

    SPEC: ClassVar = {
        "looks": {"type": "dict", "required": True},
        "addresses": {"type": "dict", "default": {}},
        "observers": {"type": "list", "elements": "str", "default": []},
    }

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The picture, for programs and for people."""
        now = time.time()
        status = overview(given["looks"], given["addresses"], given["observers"], now)
        return {"status": status, "table": table(status, now)}
