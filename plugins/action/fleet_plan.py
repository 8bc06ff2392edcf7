"""The fleet plan, from wishes and facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import CalibrationError, PlacementError, WishError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.calibration import (
    Calibration,
    Measurement,
    read_measurements,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.adapters import with_adapters
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.describe import described_hosts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.ports import BASE_PORT
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.table import format_table
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import DEFAULT_VERSION
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.facts import check_facts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.tracing import traced
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision

_INSTANCE = {
    "id": {"type": "str", "required": True},
    "model": {"type": "str", "required": True},
    "gpus": {"type": "list", "elements": "raw", "required": True},
    "port": {"type": "int", "required": True},
    "rank": {"type": "int", "default": 0},
    "master_port": {"type": "int"},
    "tensor": {"type": "int"},
    "context_length": {"type": "int"},
}
_HOST = {
    "name": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "cluster_address": {"type": "str", "default": ""},
    "gpu_facts": {"type": "dict", "required": True},
    "model_facts": {"type": "dict", "default": {}},
    "instances": {"type": "list", "elements": "dict", "default": [], "options": _INSTANCE},
}


class ActionModule(Decision):
    """Runs on the controller, where everything is that it is made of."""

    SPEC: ClassVar = {
        "models": {"type": "list", "elements": "raw", "required": True},
        "hosts": {"type": "list", "elements": "dict", "options": _HOST},
        "described_hosts": {"type": "list", "elements": "raw"},
        "groups": {"type": "dict", "default": {}},
        "vllm_version": {"type": "str"},
        "model_facts": {"type": "dict", "default": {}},
        "calibration": {"type": "path"},
        "engine_environment": {"type": "dict", "default": {}},
        "traces_endpoint": {"type": "str", "default": ""},
        "pin_kv_cache": {"type": "bool", "default": True},
        "base_port": {"type": "int", "default": BASE_PORT},
    }

    def decide(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The plan, or why there is none."""
        try:
            return _planned(given)
        except WishError as error:
            count = len(error.problems)
            places = sorted({re.split(r"[.:\[]", problem)[0] for problem in error.problems}, reverse=True)
            where = " and ".join(places)
            return _failure(f"{count} mistake{'s' * (count > 1)} in {where}:\n{error}", problems=error.problems)
        except CalibrationError as error:
            return _failure(f"The calibration {given['calibration']} cannot be used: {error}.")
        except PlacementError as error:
            return _failure(f"The fleet does not fit its hosts:\n{error}", rejected=error.rejected)


def _failure(message: str, **more: Any) -> dict[str, Any]:
    return {"failed": True, "msg": message, **more}


def _planned(given: Mapping[str, Any]) -> dict[str, Any]:
    version = given["vllm_version"]
    hosts, groups = given["hosts"], given["groups"]
    facts = {**known_models(hosts or ()), **given["model_facts"]}
    if given["described_hosts"] is not None:
        hosts = described_hosts(given["described_hosts"])
        groups = {"gpu_hosts": [host["name"] for host in hosts]}
    wishes, warnings = read_wishes(given["models"], version, groups, given["engine_environment"])
    wishes = traced(wishes, given["traces_endpoint"])
    check_facts(facts)
    known = measurements(given["calibration"]) if given["calibration"] else []
    if given["calibration"] and not known:
        warnings.append(
            f"The calibration {given['calibration']} has no measurement in it: engines that are pinned, not sized, "
            "or of vLLM's CPU build tell nothing of the memory there was. Measure with vllm_pin_kv_cache: false."
        )
    if hosts is None:
        return {"warnings": warnings}
    wishes, doubts = with_adapters(wishes, facts, version or DEFAULT_VERSION)
    accounts = Accounts(facts, version or DEFAULT_VERSION, Calibration(known), given["engine_environment"])
    records = [Host.from_dict(host) for host in hosts]
    plan = plan_fleet(wishes, records, given["base_port"], Sizer(accounts), pin_kv_cache=given["pin_kv_cache"])
    plan["warnings"] = warnings + doubts + plan["warnings"]
    shown = [{key: host[key] for key in ("name", "address", "gpu_facts", "instances")} for host in hosts]
    return {"plan": plan, "hosts": shown, "table": format_table(plan)}


def known_models(hosts: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The facts of every model that any of the hosts has read, of the first that could; else why it could not."""
    known: dict[str, Mapping[str, Any]] = {}
    for host in sorted(hosts, key=lambda host: str(host["name"])):
        for model, facts in host.get("model_facts", {}).items():
            if "problem" in known.get(model, {"problem": ""}) and ("problem" not in facts or model not in known):
                known[model] = facts
    return known


def measurements(path: str) -> list[Measurement]:
    """The measurements in a file.

    :raises CalibrationError: it cannot be read, or holds something else.
    """
    try:
        return read_measurements(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise CalibrationError(error.strerror or str(error)) from error
    except ValueError as error:
        raise CalibrationError(f"it is no JSON ({error})") from error
