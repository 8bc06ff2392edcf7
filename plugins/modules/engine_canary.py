#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_canary
short_description: Watch whether engines that were changed serve their users well
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Reads the metrics of the engines again and again for O(seconds), and fails as soon as too many requests fail or wait
    too long for their first token, or an engine does not answer any more.
  - Only what is counted meanwhile is judged, and only from 20 requests on. Asks the engines for nothing but metrics.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  engines:
    description: Where each engine answers, without C(/metrics), by its C(id).
    type: dict
    required: true
  seconds:
    description: How long.
    type: float
    required: true
  every:
    description: Seconds between two looks.
    type: float
    default: 5
  error_rate:
    description: Share of the requests that may fail.
    type: float
    default: 0.01
  ttft:
    description: Seconds in which 95 % of the requests must have their first token; without it, they may take any time.
    type: float
"""

EXAMPLES = r"""
- name: Watch the first instance for ten minutes
  gpuhosts.vllm.engine_canary:
    engines: {tiny-1: "http://10.0.0.11:8000"}
    seconds: 600
    ttft: 2
"""

RETURN = r"""
requests:
  description: How many requests each engine has answered meanwhile, by its C(id).
  returned: success
  type: dict
  sample: {tiny-1: 1234}
"""

import time
from collections.abc import Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.canary import Counts, Limits, judge
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError

REQUEST_SECONDS = 10
DEAF = 2  # looks in a row without an answer


def watch(clients: Mapping[str, OpenAiClient], limits: Limits, seconds: float, every: float) -> dict[str, Counts]:
    """What each engine has counted meanwhile.

    :raises ApiError: One does not answer, or not well enough; the message says which.
    """
    deadline = time.monotonic() + seconds
    before = {name: Counts.read(client.text("/metrics")) for name, client in clients.items()}
    seen, silent = dict.fromkeys(clients, Counts()), dict.fromkeys(clients, 0)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(every, left))
        for name, client in clients.items():
            try:
                seen[name] = Counts.read(client.text("/metrics")).since(before[name])
                silent[name] = 0
            except ApiError:
                silent[name] += 1
                if silent[name] >= DEAF:
                    raise
            wrong = judge(seen[name], limits)
            if wrong:
                raise ApiError(f"{name}: {wrong}")
    return seen


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "engines": {"type": "dict", "required": True},
            "seconds": {"type": "float", "required": True},
            "every": {"type": "float", "default": 5},
            "error_rate": {"type": "float", "default": 0.01},
            "ttft": {"type": "float"},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="check mode contacts no engine")
    clients = {name: OpenAiClient(url, timeout=REQUEST_SECONDS) for name, url in given["engines"].items()}
    try:
        seen = watch(clients, Limits(given["error_rate"], given["ttft"]), given["seconds"], given["every"])
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, requests={name: round(counts.answered) for name, counts in seen.items()})


if __name__ == "__main__":
    main()
