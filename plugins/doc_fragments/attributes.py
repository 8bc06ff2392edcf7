"""The attributes of modules, described once and as most of them are; a module states what differs."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Whether the module can say what it would do without doing it.
    support: full
  diff_mode:
    description: Whether the module shows what changed.
    support: none
  idempotent:
    description: Whether a second run with the same options changes nothing.
    support: full
"""
