"""Actions that compute on the controller and contact nothing; private to the collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase

__all__ = ["Decision"]


class Decision(ActionBase):
    """An action whose result is a function of its arguments, which are those of the module of the same name."""

    TRANSFERS_FILES = False
    _requires_connection = False
    SPEC: ClassVar[Mapping[str, Any]]

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The result, from arguments that have been validated."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see ActionBase."""
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(argument_spec=dict(self.SPEC))
        return {**result, "changed": False, **self.decide(given)}
