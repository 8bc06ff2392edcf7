"""Tells the module host_info what is wanted of the host, sends pynvml along, notes the time before and after it."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import pack_binding
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.wanted import wanted


class ActionModule(ActionBase):
    """Runs the module of the same name; what it is to look at follows from the host's variables."""

    TRANSFERS_FILES = False
    OWN: ClassVar = {"plan": {"type": "dict", "default": {}}, "model_facts": {"type": "dict", "default": {}}}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(argument_spec=self.OWN)
        known = task_vars or {}
        name = known["inventory_hostname"]
        wishes = wanted(name, known["hostvars"][name], given["plan"], given["model_facts"])
        arguments = {"binding": pack_binding(), "wanted": wishes}
        before = time.time()
        result.update(self._execute_module("gpuhosts.vllm.host_info", arguments, task_vars=task_vars))
        return result | {"asked_epoch": [before, time.time()]}
