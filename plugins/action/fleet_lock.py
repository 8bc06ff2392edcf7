"""Tells the module fleet_lock which run this is, and whether the one that holds the lock is still alive here."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.controller import is_gone, this_run


class ActionModule(ActionBase):
    """Runs the module of the same name, a second time where the first one met a run that has died."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result = super().run(tmp, task_vars)
        given = self._task.args | {"who": this_run()}
        told = self._execute_module("gpuhosts.vllm.fleet_lock", given, task_vars=task_vars)
        holder = told.get("holder") or {}
        if told.get("failed") and holder and is_gone(holder["run"]):
            given |= {"dead": [holder["run"]]}
            told = self._execute_module("gpuhosts.vllm.fleet_lock", given, task_vars=task_vars)
        return result | told
