"""The options of modules that plan for a host, described once."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc."""

    DOCUMENTATION = r"""
options:
  host:
    description: Name of the host in messages.
    type: str
    required: true
  distribution:
    description: The fact C(distribution).
    type: str
    required: true
  distribution_version:
    description: The fact C(distribution_version).
    type: str
    required: true
  platforms:
    description: What differs between distributions, as in C(vars/main/platforms.yml) of the module's role.
    type: dict
    required: true
  wishes:
    description: Variables of that role, without their prefix.
    type: dict
    required: true
"""
