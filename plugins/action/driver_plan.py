"""Sends the controller's pynvml along with the module driver_plan, where that is to read the GPUs."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import pack_binding


class ActionModule(ActionBase):
    """Runs the module of the same name with the packed binding among its arguments."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result = super().run(tmp, task_vars)
        binding = pack_binding() if boolean(self._task.args.get("gpus", False)) else None
        arguments = {"binding": binding} | self._task.args
        result.update(self._execute_module("gpuhosts.vllm.driver_plan", arguments, task_vars=task_vars))
        return result
