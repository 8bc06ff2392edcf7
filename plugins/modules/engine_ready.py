#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_ready
short_description: Wait until a vLLM instance really answers
version_added: 0.1.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Waits, in this order, for the systemd unit, C(/health), the model in C(/v1/models), and an answer of the kind that
    the model is for, such as a completion with text in it (option O(task)).
  - A healthy C(/health) alone proves little; engines were seen to crash on their first request.
  - Returns the values that the engine has resolved for itself, to be compared with the plan.
  - Fails as soon as the unit does, or at the timeout, with the stage it came to and the first error that the journal
    shows since the unit's last start. The processes of vLLM that fail after it only say so; the end of the journal
    never has the cause.
extends_documentation_fragment: [gpuhosts.vllm.attributes, gpuhosts.vllm.question]
attributes:
  check_mode:
    details: The engine is not contacted; the module reports itself as skipped.
options:
  unit:
    description: systemd unit of the instance.
    type: str
    required: true
  url:
    description:
      - Where the instance listens, without C(/v1).
      - Without it, on a node that has no API, the module waits until O(keeper_metrics) say that the instance answers.
    type: str
  keeper_metrics:
    description: File of the keeper of the node, which it writes anew whenever its state changes.
    type: path
  secrets_file:
    description:
      - Secrets that the instance was started with, as M(gpuhosts.vllm.engine_config) writes them. Its API key is sent
        instead of O(api_key).
    type: path
    version_added: 0.2.0
  timeout:
    description: Seconds that all stages together may take.
    type: int
    default: 900
  adapters:
    description:
      - The LoRA adapters that the instance is to serve and no others, each with C(name) and C(source), the path of its
        directory. Once it is ready, it loads and drops adapters without a restart, which takes
        E(VLLM_ALLOW_RUNTIME_LORA_UPDATING) in its environment.
      - Without the option nothing is said of adapters.
    type: list
    elements: dict
    version_added: 0.2.0
  max_restarts:
    description: Restarts by systemd, since the module began to wait, after which the unit counts as crashing in a loop.
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
  sample: answer
adapters:
  description: What was done about adapters.
  returned: success
  type: list
  elements: str
  sample: ["sql is served from /srv/adapters/sql"]
seconds:
  description: Seconds that the module waited.
  returned: success
  type: float
  sample: 41.2
effective:
  description:
    - What the engine has resolved, C(max_model_len) from C(/v1/models) and the rest from the metric
      C(vllm:cache_config_info).
    - C(boot) is V(cold) where the journal of this boot shows that torch.compile had to compile, V(warm) where it found
      its work done. A first boot is cold, and has less memory for the KV cache.
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
    boot: cold
journal:
  description:
    - The first error since the unit's last start. An exception is there with its message and the last frame of its
      traceback.
    - Of a unit that systemd has restarted meanwhile and that has shown no error since, it is that of the last start
      that did.
    - Without an error the last lines of the journal.
  returned: failure
  type: list
  elements: str
journal_command:
  description: What prints the whole journal of that start, on the host. Empty if there is none.
  returned: failure
  type: str
  sample: journalctl _SYSTEMD_INVOCATION_ID=2e4ddc1a1c2e4b1c8b + INVOCATION_ID=2e4ddc1a1c2e4b1c8b
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.adapters import reconcile
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.answer import (
    REQUEST_SECONDS,
    answer_of,
    look_at_unit,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.configuration import variables_of_file
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.evidence import Evidence, evidence_of, read_journal
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import QUESTION, OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError, NotReadyError

JOURNAL_LINES = "10000"  # of which the starts are that are looked at; one start of eight GPUs takes about a thousand


def failure(unit: str, error: NotReadyError, found: Evidence | None) -> dict[str, object]:
    """What the module fails with."""
    message = f"{unit} is not ready. It came to the stage {error.stage!r}: {error}."
    if found is None:
        return {"msg": f"{message} Its journal is empty.", "stage": error.stage, "journal": [], "journal_command": ""}
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(found.seconds))
    title = "The first error" if found.error else "There is no error in its journal; the end of it,"
    command = f"journalctl _SYSTEMD_INVOCATION_ID={found.invocation} + INVOCATION_ID={found.invocation}"
    lines = [message, f"{title} since its start at {since}:", *found.lines, f"All of it, on that host: {command}"]
    return {"msg": "\n".join(lines), "stage": error.stage, "journal": list(found.lines), "journal_command": command}


def key_of(given: Mapping[str, Any]) -> str:
    """The API key that the instance asks for."""
    if not given["secrets_file"]:
        return str(given["api_key"])
    return variables_of_file(Path(given["secrets_file"]).read_text(encoding="utf-8")).get("VLLM_API_KEY", "")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "url": {"type": "str"},
            "keeper_metrics": {"type": "path"},
            "secrets_file": {"type": "path", "no_log": False},
            **QUESTION,
            "timeout": {"type": "int", "default": 900},
            "adapters": {"type": "list", "elements": "dict"},
            "max_restarts": {"type": "int", "default": 2},
        },
        required_one_of=[("url", "keeper_metrics")],
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="check mode contacts no engine")
    given = module.params

    def run(command: list[str]) -> str:
        # A journal that cannot be read is no reason to fail.
        return str(module.run_command(command, check_rc=command[0] == "systemctl")[1])

    adapters: list[str] = []
    try:
        seconds = min(REQUEST_SECONDS, given["timeout"])
        client = OpenAiClient(given["url"], key_of(given), seconds) if given["url"] else None
        answer = answer_of(run, client, given, given["timeout"])
        if client and given["adapters"] is not None:
            adapters = reconcile(client, given["adapters"])
    except NotReadyError as error:
        fields = "--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID"
        command = ["journalctl", "-u", given["unit"], "-n", JOURNAL_LINES, "--no-pager", "--all", "-o", "json", fields]
        evidence = evidence_of(read_journal(run(command)), look_at_unit(run, given["unit"]).restarts)
        module.fail_json(**failure(given["unit"], error, evidence))
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(adapters), adapters=adapters, **answer)


if __name__ == "__main__":
    main()
