"""The options of modules that ask a model something, described once."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc; QUESTION in module_utils/_engine/openai.py is the same for Ansible."""

    DOCUMENTATION = r"""
options:
  model:
    description: Name of the model as it is served.
    type: str
    required: true
  api_key:
    description: Sent as a bearer token.
    type: str
    default: ""
  prompt:
    description: What to ask.
    type: str
    default: Say hello.
"""
