"""The attributes that every module states, described once."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Whether the module can say what it would do without doing it.
  diff_mode:
    description: Whether the module shows what changed.
  idempotent:
    description: Whether a second run with the same options changes nothing.
"""
