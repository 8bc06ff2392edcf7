"""Sends the controller's pynvml along with the module host_info, and notes the time before and after it."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import pack_binding


class ActionModule(ActionBase):
    """Runs the module of the same name with the packed binding among its arguments."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result = super().run(tmp, task_vars)
        arguments = {"binding": pack_binding()} | self._task.args
        before = time.time()
        result.update(self._execute_module("gpuhosts.vllm.host_info", arguments, task_vars=task_vars))
        return result | {"asked_epoch": [before, time.time()]}
