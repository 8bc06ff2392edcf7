"""The fleet plan as files to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.plan_files import plan_files


class ActionModule(Decision):
    """Runs on the controller, where the page's style sheet is."""

    SPEC: ClassVar = {
        "plan": {"type": "dict", "required": True},
        "table": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "dict", "default": []},
    }

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The files."""
        try:
            return {"files": plan_files(given["plan"], given["table"], given["hosts"])}
        except (AttributeError, KeyError, TypeError) as error:
            raise AnsibleActionFail(
                f"fleet_report wants a fleet plan and its hosts; this is something else: {error!r}"
            ) from error
