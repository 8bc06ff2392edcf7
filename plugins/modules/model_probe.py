#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: model_probe
short_description: Ask a model what it is for, as a user would
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Sends one request to an OpenAI-compatible server or a load balancer in front of some. A model that generates text is
    asked for a chat, whose stream is read to its end; O(task) says what others are asked.
  - Fails, saying why, when it cannot be reached, refuses, breaks off, or does not give an answer of that kind.
extends_documentation_fragment: [gpuhosts.vllm.attributes, gpuhosts.vllm.question]
attributes:
  check_mode:
    details: Nothing is sent; the module reports itself as skipped.
options:
  url:
    description: Where the server is, without C(/v1).
    type: str
    required: true
  certificate:
    description:
      - File with the certificate in PEM that is believed at V(https), or that of the authority which has signed it. The
        names in it do not matter. Without it the system's authorities are believed, for the name in O(url).
    type: str
    default: ""
  max_tokens:
    description: Tokens after which a generated text ends.
    type: int
    default: 16
  timeout:
    description: Seconds that the server may stay silent.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Ask through the front door
  gpuhosts.vllm.model_probe:
    url: http://10.0.0.2
    model: llama-3.3-70b
    api_key: "{{ vllm_api_key }}"
"""

RETURN = r"""
text:
  description: The answer of a model that generates text, and of others what it is.
  returned: success
  type: str
  sample: Hello! How can I
chunks:
  description: Pieces of text that the stream was made of; 1 for an answer in one piece.
  returned: success
  type: int
  sample: 5
time_to_first_token_seconds:
  description: Seconds from the request to the first piece.
  returned: success
  type: float
  sample: 0.214
seconds:
  description: Seconds from the request to the end of the answer.
  returned: success
  type: float
  sample: 0.623
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import QUESTION, OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.probe import ask
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            **QUESTION,
            "certificate": {"type": "str", "default": ""},
            "max_tokens": {"type": "int", "default": 16, "no_log": False},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    wish = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="a probe is sent to a running server only")
    try:
        client = OpenAiClient(wish["url"], wish["api_key"], wish["timeout"], wish["certificate"])
        answer = ask(client, wish["task"], wish["model"], wish["prompt"], wish["max_tokens"], stream=True)
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        text=answer.text,
        chunks=answer.chunks,
        time_to_first_token_seconds=round(answer.first_seconds, 3),
        seconds=round(answer.seconds, 3),
    )


if __name__ == "__main__":
    main()
