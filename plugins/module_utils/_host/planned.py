"""What the modules that plan for a host have in common: their arguments, and how wishes become a record; private.

The role names its host, hands over its table of platforms and its variables, and gets a plan or a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from .._errors import ContainersError, FleetError
from .platform import find_platform, resolve

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["ARGUMENTS", "Host", "platform_of", "wishes_of"]

# Documented in plugins/doc_fragments/planned.py.
ARGUMENTS: Mapping[str, Any] = {
    "host": {"type": "str", "required": True},
    "distribution": {"type": "str", "required": True},
    "distribution_version": {"type": "str", "required": True},
    "platforms": {"type": "dict", "required": True},
    "wishes": {"type": "dict", "required": True},
}

Wishes = TypeVar("Wishes", bound="DataclassInstance")


@dataclass(frozen=True)
class Host:
    """A host as messages and tables know it."""

    name: str
    distribution: str
    version: str
    kernel: str = ""  # that runs, as `uname -r` says it

    @property
    def platform(self) -> str:
        """The host's key in a table of platforms."""
        return find_platform(self.distribution, self.version)[0]


def wishes_of(kind: type[Wishes], values: Mapping[str, Any]) -> Wishes:
    """The record of wishes; a word that is none is refused."""
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FleetError(f"wishes: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return kind(**values)


def platform_of(host: Host, platforms: Mapping[str, Any], role: str, remedy: str) -> dict[str, Any]:
    """The host's record in the table of a role; raises ContainersError where it has none."""
    if host.platform not in platforms:
        raise ContainersError(
            f"{host.name} runs {host.platform}; the role {role} is made for {', '.join(platforms)}. {remedy}"
        )
    return resolve(platforms, host.platform)
