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
  task:
    description:
      - What the model does, and so what it is asked. That is a text for V(generate), a vector for V(embed), how well
        two texts belong together for V(score), what a text is for V(classify), and the words of a short recording for
        V(transcribe).
    type: str
    default: generate
    choices: [generate, embed, score, classify, transcribe]
"""
