#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: chat_probe
short_description: Stream one chat completion, as a user would
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Sends one chat request to an OpenAI-compatible server or a load balancer in front of some, and reads the stream
    to its end.
  - Fails, saying why, when it cannot be reached, refuses, breaks off, or ends without a token.
extends_documentation_fragment: [gpuhosts.vllm.attributes, gpuhosts.vllm.question]
attributes:
  check_mode:
    details: Nothing is sent; the module reports itself as skipped.
options:
  url:
    description: Where the server is, without C(/v1).
    type: str
    required: true
  max_tokens:
    description: Tokens after which the answer ends.
    type: int
    default: 16
  timeout:
    description: Seconds that the server may stay silent.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Ask through the front door
  gpuhosts.vllm.chat_probe:
    url: http://10.0.0.2
    model: llama-3.3-70b
    api_key: "{{ vllm_api_key }}"
"""

RETURN = r"""
text:
  description: The answer.
  returned: success
  type: str
  sample: Hello! How can I
chunks:
  description: Pieces of text that the stream was made of.
  returned: success
  type: int
  sample: 5
time_to_first_token_seconds:
  description: Seconds from the request to the first piece.
  returned: success
  type: float
  sample: 0.214
seconds:
  description: Seconds from the request to the end of the stream.
  returned: success
  type: float
  sample: 0.623
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import QUESTION, OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            **QUESTION,
            "max_tokens": {"type": "int", "default": 16, "no_log": False},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    wish = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="a probe is sent to a running server only")
    try:
        client = OpenAiClient(wish["url"], wish["api_key"], wish["timeout"])
        chat = client.chat(wish["model"], wish["prompt"], wish["max_tokens"])
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        text=chat.text,
        chunks=chat.chunks,
        time_to_first_token_seconds=round(chat.first_seconds, 3),
        seconds=round(chat.seconds, 3),
    )


if __name__ == "__main__":
    main()
