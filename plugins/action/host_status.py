"""Runs the module of the same name; a host on which it does not run is told of, and no failure."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """What a picture of the fleet says of a host that is away, and Ansible's words for it would say in its place."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result = super().run(tmp, task_vars)
        if self._connection.transport == "ssh":
            # One that Ansible has kept from another playbook would hold the run for as long as its host is silent.
            own = f"{self._connection.get_option('ssh_extra_args') or ''} -o ControlPath=none".strip()
            self._connection.set_option("ssh_extra_args", own)
        try:
            found = self._execute_module("gpuhosts.vllm.host_status", self._task.args, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return {**result, "changed": False, "unreached": _in_one_line(str(error))}
        if found.get("failed"):
            return {**result, "changed": False, "unread": _in_one_line(str(found.get("msg")))}
        return {**result, **found}


def _in_one_line(message: str) -> str:
    return " ".join(message.split()).removeprefix("Task failed: ")
