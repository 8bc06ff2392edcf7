"""Plans, reports and verdicts as files of the controller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision


class ActionModule(Decision):
    """Runs on the controller, where the files are to lie."""

    SPEC: ClassVar = {
        "directory": {"type": "path", "required": True},
        "files": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {
                "name": {"type": "str", "required": True},
                "content": {"type": "str", "required": True},
                "told": {"type": "bool", "default": False},
            },
        },
    }

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Write what differs."""
        directory = Path(given["directory"])
        diff = []
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            for file in given["files"]:
                path = directory / file["name"]
                before = path.read_text(encoding="utf-8") if path.exists() else ""
                if before == file["content"]:
                    continue
                path.write_text(file["content"], encoding="utf-8")
                path.chmod(0o644)  # whatever the umask is
                if file["told"]:
                    header = {"before_header": str(path), "after_header": str(path)}
                    diff.append({**header, "before": before, "after": file["content"]})
        except OSError as error:
            raise AnsibleActionFail(f"Reports cannot be kept in {directory}: {error}. Set fleet_report_dir.") from error
        paths = [str(directory / file["name"]) for file in given["files"]]
        return {"changed": bool(diff), "diff": diff, "paths": paths}
