#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_check
short_description: Tell what is wrong with a certificate before a service shows it
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Looks whether a certificate can be shown, today and for these names, and whether the key belongs to it. Changes
    nothing, and leaves nothing behind.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  certificate:
    description: The certificate in PEM, with those between it and its authority after it, or a path on the host.
    type: str
    required: true
  key:
    description: Its key in PEM, without a password, or a path on the host.
    type: str
    required: true
  names:
    description: Names and addresses that the certificate must be for.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look at the certificate
  gpuhosts.vllm.certificate_check:
    certificate: /etc/ssl/llm.example.org.pem
    key: /etc/ssl/private/llm.example.org.key
    names: [llm.example.org]
  register: certificate
"""

RETURN = r"""
mistakes:
  description: What is wrong, sentences for people, each with what to do.
  returned: success
  type: list
  elements: str
  sample: ["The certificate has expired, on 2026-11-01. Put a new one there."]
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.certificate import mistakes


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    texts, found = [], []
    for value in (given["certificate"], given["key"]):
        try:
            texts.append(Path(value).read_text("utf-8", errors="replace") if value.startswith("/") else value)
        except OSError as error:
            found.append(f"{value} cannot be read: {error.strerror}. Put the file there, or name another one.")
    if not found:
        found = mistakes(texts[0], texts[1], given["names"], time.time())
    module.exit_json(changed=False, mistakes=found)


if __name__ == "__main__":
    main()
