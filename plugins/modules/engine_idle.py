#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_idle
short_description: Wait until a vLLM instance has no request left
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads C(/metrics) of the engine until no request runs or waits in it, twice in a row. Drain it first, or new ones
    keep coming.
  - An engine that does not listen has no requests.
  - Fails at the timeout; nothing was stopped then, and the requests go on.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    details: The engine is not contacted; the module reports itself as skipped.
options:
  url:
    description: Where the instance listens, without C(/v1).
    type: str
    required: true
  timeout:
    description: Seconds that the requests in flight may take.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Wait for the streams that still run
  gpuhosts.vllm.engine_idle:
    url: http://10.0.0.11:8000
    timeout: 3600
"""

RETURN = r"""
requests:
  description: Requests that were left at the end.
  returned: always
  type: int
  sample: 0
seconds:
  description: Seconds that the module waited.
  returned: success
  type: float
  sample: 12.4
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.ready import wait_until_idle
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError, BusyError

REQUEST_SECONDS = 10  # of one look at the metrics


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"url": {"type": "str", "required": True}, "timeout": {"type": "int", "default": 600}},
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="check mode contacts no engine")
    given = module.params
    try:
        seconds = wait_until_idle(OpenAiClient(given["url"], timeout=REQUEST_SECONDS), given["timeout"])
    except BusyError as error:
        module.fail_json(msg=f"{given['url']}: {error}", requests=error.requests)
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, requests=0, seconds=round(seconds, 1))


if __name__ == "__main__":
    main()
