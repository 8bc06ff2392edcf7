#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: model_manifest
short_description: List the files of a model that vLLM loads, with their checksums
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads the list from the store of models where that has the model, else asks the hub. Changes nothing.
  - Files of other formats than the one that vLLM prefers are not in it.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  directory:
    description: The store.
    type: path
    required: true
  source:
    description: The model's id on the hub.
    type: str
    required: true
  revision:
    description: Branch, tag or commit.
    type: str
    default: main
  load_format:
    description: What C(--load-format) of vLLM says.
    type: str
    default: auto
  endpoint:
    description: The URL of a mirror of the hub. By default E(HF_ENDPOINT), else V(https://huggingface.co).
    type: str
  token:
    description: The token for models that are not public. It is sent to O(endpoint) and nowhere else.
    type: str
seealso:
  - module: gpuhosts.vllm.model_store
  - module: gpuhosts.vllm.model_fetch
"""

EXAMPLES = r"""
- name: List the files of a model
  gpuhosts.vllm.model_manifest:
    directory: /srv/model-store
    source: Qwen/Qwen3-8B
  register: listed
"""

RETURN = r"""
manifest:
  description: The model, and its files.
  returned: success
  type: dict
  sample:
    source: Qwen/Qwen3-8B
    revision: main
    commit: b968826d9c46dd6066d109eabc6255188de91218
    files:
      - {path: config.json, size: 728, digest: 07b4f55c2a8d3ab8e3e2a1c5d9d4bbd0f3d6c1aa}
endpoint:
  description: The hub's address.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError, ModelStoreError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.hub import (
    LOAD_FORMATS,
    Repository,
    endpoint_of,
    manifest_from_hub,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_store import manifest_of, place_of


def main() -> None:
    """Read the list."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "source": {"type": "str", "required": True},
            "revision": {"type": "str", "default": "main"},
            "load_format": {"type": "str", "default": "auto"},
            "endpoint": {"type": "str"},
            "token": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    endpoint = endpoint_of(given["endpoint"])
    repository = Repository(given["source"], given["revision"], endpoint, given["token"] or "")
    try:
        if given["load_format"] not in LOAD_FORMATS:
            known = ", ".join(sorted(LOAD_FORMATS))
            raise ModelStoreError(f"load_format is '{given['load_format']}'; the store knows the files of {known}.")
        manifest = manifest_of(Path(given["directory"], place_of(given["source"], given["revision"])))
        module.exit_json(manifest=manifest or manifest_from_hub(repository, given["load_format"]), endpoint=endpoint)
    except FleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
