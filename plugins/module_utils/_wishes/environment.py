"""Reads environment variables of engines, and keeps secrets out of them; private to the collection.

``env`` of a model and ``vllm_environment`` land in files that the engines' group may read, in the plan, in diffs and in
reports. A secret has a variable of the role vllm instead, whose file root alone may read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._engine.directories import unusable, written

__all__ = ["directory_problems", "environment_problems"]

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
OWNED = {
    "CUDA_DEVICE_ORDER": "the plan sets it.",
    "CUDA_VISIBLE_DEVICES": "the planner chooses the GPUs.",
    "RAY_ADDRESS": "it follows from the plan.",
    "VLLM_HOST_IP": "every host has another. Set fleet_cluster_address of the hosts.",
}
_PLACES = {
    "GPUHOSTS_KEEPER_TOKEN": "vllm_keeper_token",
    "HF_TOKEN": "vllm_hf_token",
    "HUGGING_FACE_HUB_TOKEN": "vllm_hf_token",
    "HUGGINGFACE_HUB_TOKEN": "vllm_hf_token",
    "VLLM_API_KEY": "vllm_api_key",
}
# TOKENIZERS_PARALLELISM and MAX_TOKENS are none; HF_TOKEN_PATH and AWS_SHARED_CREDENTIALS_FILE name a file.
_SECRET = re.compile(
    r"TOKEN(?![A-Z])|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL"
    r"|(?:API|ACCESS|ACCOUNT|AUTH|ENCRYPTION|PRIVATE)_?KEY(?![A-Z])",
    re.IGNORECASE,
)
_FILE = re.compile(r"_(?:FILE|PATH|DIR|URL|TTL|TIMEOUT)$", re.IGNORECASE)
_SWITCH = re.compile(r"(?:|true|false|yes|no|on|off|none|auto|\d{1,6}(?:\.\d+)?)", re.IGNORECASE)
# Tokens of services whose look gives them away, whatever the variable is called.
_LOOK = re.compile(r"(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|nvapi-)[\w-]{16,}|AKIA[0-9A-Z]{16}")


def environment_problems(variables: Any, where: str) -> Iterator[str]:
    """What is wrong with a mapping of variables that stands in ``where``; the value of a variable is in no sentence."""
    if not isinstance(variables, Mapping):
        yield "it is not a mapping of names to values."
        return
    for name, content in variables.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            yield f"{name!r} is not the name of an environment variable."
        elif where == "env" and (isinstance(content, bool) or not isinstance(content, (str, int, float))):
            yield f"the value of {name} is not a text; quote it."
        elif _is_secret(name, str(content)):
            place = _PLACES.get(name.upper())
            ways = f"Set {place}" if place else f"Put it into vllm_secrets as {{{name}: ...}}"
            yield f"{name} is not for {where}: it would stand in readable files. {ways}."
    yield from directory_problems({}, variables)


def directory_problems(engine_args: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the directories that options and environment name for an engine to write to."""
    for name, path in written(engine_args, variables).items():
        reason = unusable(path)
        if reason:
            yield f"{name} is {path}, and {reason}."


def _is_secret(name: str, content: str) -> bool:
    if _LOOK.fullmatch(content.strip()) or name.upper() in _PLACES:
        return True
    return bool(_SECRET.search(name)) and not _FILE.search(name) and not _SWITCH.fullmatch(content.strip())
