"""Waits for the program that model_fetch has started on a host, and shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.progress import line

FIRST, LONGEST, FACTOR = 0.5, 10.0, 1.5  # seconds between two looks


class ActionModule(ActionBase):
    """Runs the module of the same name; with ``state: followed`` again and again."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        wait, shown = FIRST, ""
        while True:
            found = self._execute_module("gpuhosts.vllm.model_fetch", task_vars=task_vars)
            status: Mapping[str, Any] = found.get("status", {})
            if self._task.args.get("state") != "followed" or status.get("state") != "running":
                result.update(found)
                return result
            name = (task_vars or {}).get("inventory_hostname", "")
            shown, before = line(name, status), shown
            if shown != before:
                Display().display(shown)
            time.sleep(wait)
            wait = min(LONGEST, wait * FACTOR)
