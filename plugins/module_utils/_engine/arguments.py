"""The arguments of the module engine_config, which describes them; private to the collection."""

from __future__ import annotations

from typing import Any

from .._host.access import ARGUMENTS
from .start import ARGUMENTS as ARGUMENTS_OF_CONTAINERS

__all__ = ["SPEC"]

TIMES: dict[str, dict[str, Any]] = {
    "shutdown": {"type": "int", "default": 60},
    "dead": {"type": "int", "default": 20},
    "hang": {"type": "int", "default": 90},
    "start": {"type": "int", "default": 1800},
}
SPEC: dict[str, dict[str, Any]] = {
    "instances": {"type": "list", "elements": "dict", "required": True},
    "unmet": {"type": "list", "elements": "str"},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "secrets_file": {"type": "path", "required": True, "no_log": False},
    "directory": {"type": "path", "required": True},
    "runtime_directory": {"type": "path", "default": "/run/vllm"},
    "fact_file": {"type": "path", "required": True},
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "home": {"type": "path", "required": True},
    "shell": {"type": "path", "default": "/usr/sbin/nologin"},
    "header": {"type": "str", "default": ""},
    "programs": {"type": "dict", "default": {}},
    "times": {"type": "dict", "apply_defaults": True, "options": TIMES},
    "unit_file": {"type": "path", "required": True},
    "unit": {"type": "str", "required": True},
    "needrestart_file": {"type": "path"},
    "link": {"type": "path", "required": True},
    "release": {"type": "path", "required": True},
    "check": {"type": "list", "elements": "str", "required": True},
    "containers": {"type": "dict", "options": ARGUMENTS_OF_CONTAINERS},
    "host": {"type": "str"},
    "good": {
        "type": "dict",
        "options": {
            "file": {"type": "path", "required": True},
            "paths": {"type": "list", "elements": "path", "required": True},
            "mark": {"type": "path", "required": True},
        },
    },
    "only_prepared": {"type": "bool", "default": False},
    "access": {"type": "dict", "options": ARGUMENTS},
}
