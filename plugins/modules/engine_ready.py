#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_ready
short_description: Wait until a vLLM instance really answers
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Waits, in this order, for the systemd unit, C(/health), the model in C(/v1/models), and a completion with text in it.
    A healthy C(/health) alone proves little; engines were seen to crash on their first request.
  - Returns the values that the engine has resolved for itself, to be compared with the plan.
  - Fails as soon as the unit does, or at the timeout, with the stage it came to and the last lines of the unit's journal.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
    details: The engine is not contacted; the module reports itself as skipped.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  unit:
    description: systemd unit of the instance.
    type: str
    required: true
  url:
    description: Where the instance listens, without C(/v1).
    type: str
    required: true
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
  timeout:
    description: Seconds that all stages together may take.
    type: int
    default: 900
  max_restarts:
    description: Restarts by systemd after which the unit counts as crashing in a loop.
    type: int
    default: 2
"""

EXAMPLES = r"""
- name: Wait for the instance
  gpuhosts.vllm.engine_ready:
    unit: vllm@llama-3.3-70b-1.service
    url: http://10.0.0.11:8000
    model: llama-3.3-70b
    api_key: "{{ vllm_api_key }}"
"""

RETURN = r"""
stage:
  description: Stage that was reached.
  returned: always
  type: str
  sample: completion
seconds:
  description: Seconds that the module waited.
  returned: success
  type: float
  sample: 41.2
effective:
  description:
    - What the engine has resolved, C(max_model_len) from C(/v1/models) and the rest from the metric C(vllm:cache_config_info).
    - Values that the engine does not report are missing.
  returned: success
  type: dict
  sample:
    max_model_len: 131072
    num_gpu_blocks: 25600
    block_size: 16
    kv_cache_size_tokens: 409600
    kv_cache_max_concurrency: 3.125
    gpu_memory_utilization: 0.92
journal:
  description: Last lines of the unit's journal.
  returned: failure
  type: list
  elements: str
"""

import json
import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._openai import (
    ApiError,
    OpenAiClient,
    RefusedError,
    parse_cache_config,
)

JOURNAL_LINES = 30
POLL_SECONDS = 1.0
REQUEST_SECONDS = 60  # one request; an engine that hangs is asked again until the module's own timeout
NUMBERS = ("num_gpu_blocks", "block_size", "kv_cache_size_tokens", "kv_cache_max_concurrency", "gpu_memory_utilization")


class UnitFailedError(Exception):
    """Waiting longer is of no use."""


def check_unit(module: AnsibleModule) -> None:
    """Raise ApiError while the unit is not active yet, UnitFailedError when it will not become so."""
    command = ["systemctl", "show", module.params["unit"], "--property=ActiveState,NRestarts,Result"]
    state = dict(line.split("=", 1) for line in module.run_command(command, check_rc=True)[1].splitlines())
    if state["ActiveState"] in ("failed", "inactive"):
        raise UnitFailedError(f"the unit is {state['ActiveState']} (result: {state['Result']})")
    if int(state["NRestarts"]) > module.params["max_restarts"]:
        raise UnitFailedError(f"the unit crashes in a loop: systemd has restarted it {state['NRestarts']} times")
    if state["ActiveState"] != "active":
        raise ApiError(f"the unit is {state['ActiveState']}")


def check_health(client: OpenAiClient) -> None:
    """Raise ApiError unless the API server says that its engine lives."""
    status = client.status("/health")
    if status != 200:
        raise ApiError(f"/health answers HTTP {status}")


def listed(client: OpenAiClient, name: str) -> dict[str, Any]:
    """The model's entry in /v1/models."""
    models = {model["id"]: model for model in client.models()}
    if name not in models:
        raise ApiError(f"/v1/models lists {', '.join(models) or 'nothing'}, not {name!r}")
    return models[name]


def effective(client: OpenAiClient, entry: dict[str, Any]) -> dict[str, Any]:
    """What the engine reports of itself; values that it does not know are left out."""
    labels = parse_cache_config(client.text("/metrics"))
    values = {"max_model_len": entry.get("max_model_len")}
    for name in NUMBERS:
        try:
            values[name] = json.loads(labels.get(name, "null"))
        except ValueError:
            values[name] = None
    return {name: value for name, value in values.items() if value is not None}


def wait(module: AnsibleModule) -> dict[str, Any]:
    """Go through the stages, from the first again until all are passed in one go; returns the module's result."""
    wish = module.params
    client = OpenAiClient(wish["url"], wish["api_key"], min(REQUEST_SECONDS, wish["timeout"]))
    start = time.monotonic()
    while True:
        stage = "unit"
        try:
            check_unit(module)
            stage = "health"
            check_health(client)
            stage = "models"
            entry = listed(client, wish["model"])
            stage = "completion"
            client.chat(wish["model"], wish["prompt"], max_tokens=4)
            return {"stage": stage, "seconds": round(time.monotonic() - start, 1), "effective": effective(client, entry)}
        except (UnitFailedError, RefusedError) as error:
            give_up(module, stage, str(error))
        except ApiError as error:
            if time.monotonic() - start > wish["timeout"]:
                give_up(module, stage, f"{error} (after {wish['timeout']} s)")
        time.sleep(POLL_SECONDS)


def give_up(module: AnsibleModule, stage: str, reason: str) -> NoReturn:
    """Fail with the stage, the reason and the end of the journal."""
    unit = module.params["unit"]
    command = ["journalctl", f"--unit={unit}", f"--lines={JOURNAL_LINES}", "--no-pager", "--output=cat"]
    journal = module.run_command(command)[1].splitlines()
    module.fail_json(
        msg=f"{unit} is not ready, stage {stage}: {reason}. The end of its journal:\n" + "\n".join(journal),
        stage=stage,
        journal=journal,
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "prompt": {"type": "str", "default": "Say hello."},
            "timeout": {"type": "int", "default": 900},
            "max_restarts": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(skipped=True, msg="check mode contacts no engine")
    module.exit_json(changed=False, **wait(module))


if __name__ == "__main__":
    main()
