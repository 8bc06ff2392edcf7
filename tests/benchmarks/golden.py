"""Is the KV planner exact? ``python tests/benchmarks/golden.py FILE.jsonl`` compares it with vectors of vLLM's own.

A line of the file holds what went in (``architecture``, ``avail`` bytes per worker, ``max_model_len``, parallel
sizes, ``block_size``, ``max_num_batched_tokens``, ``options``) and what vLLM's planner made of it (``num_blocks``,
``bytes_per_block``, ``need_one_request``, ``kv_tokens``, ``concurrency`` with four digits, or ``error``). Every
number that a line has must be met. The last line of the output is ``N/N exact``; the exit code is 1 when it is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import KvCacheError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._kv_cache import KvOptions, plan_kv_cache
from ansible_collections.gpuhosts.vllm.plugins.module_utils._model import ModelSpec, read_model

FIXTURES = ROOT / "tests" / "unit" / "fixtures" / "models"
# Sizes that the cache does not depend on, for architectures that come without them.
FILLER = {"hidden_size": 4096, "num_attention_heads": 32, "vocab_size": 32000, "intermediate_size": 8192}
AUTO = ("auto", "auto_len", "auto_length", "autofit", "auto_fit", "max_model_len_auto")


def model_of(vector: Mapping[str, Any]) -> ModelSpec:
    """The model of a vector: its architecture's fields, completed by the fixture of the model's name."""
    given = dict(vector["architecture"])
    config: dict[str, Any] = dict(FILLER)
    if not given.get("kv_lora_rank") and vector.get("model") and needs_fixture(vector):
        config |= fixture(str(vector["model"]))
    config |= {key: value for key, value in given.items() if key != "kv_cache_dtype"}
    return read_model(config)


def needs_fixture(vector: Mapping[str, Any]) -> bool:
    """Whether vLLM's groups hold kinds of layers that the architecture's fields say nothing about."""
    kinds = {str(group[1]) for group in vector.get("groups", [])}
    given = vector["architecture"]
    linear = any("Mamba" in kind for kind in kinds) or "next" in str(vector.get("model", "")).lower()
    return linear and not any("linear" in key or "mamba" in key for key in given)


def fixture(name: str) -> dict[str, Any]:
    """The config of a model among the unit tests' fixtures, or nothing."""
    for path in FIXTURES.glob("*.json"):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if name in (entry["model"], *entry.get("also", [])):
            return dict(entry["config"])
    return {}


def options_of(vector: Mapping[str, Any], model: ModelSpec) -> KvOptions:
    """The planner's options from a vector's fields; the names of the unusual ones are taken liberally."""
    extra = vector.get("options") or {}
    pipeline = int(vector.get("pipeline_parallel", 1))
    mode = str(extra.get("mamba_cache_mode") or extra.get("mamba_mode") or extra.get("mamba") or "")
    align = mode == "align" or bool(extra.get("align")) or (not mode and "align" not in extra)
    if model.hybrid and not mode and "align" not in extra:
        align = "none" not in str(vector.get("name", ""))
    requested = vector.get("requested_max_model_len", vector["max_model_len"])
    auto = (
        any(extra.get(key) for key in AUTO) or requested in (-1, "auto") or extra.get("max_model_len") in (-1, "auto")
    )
    length = vector["max_model_len"]
    if auto:
        length = model.max_len if model.max_len > 2048 else max(int(length), 131072)
    return KvOptions(
        max_model_len=int(length),
        block_size=int(extra.get("block_size") or vector.get("attention_block_size") or vector.get("block_size", 16)),
        dtype=str(vector["architecture"].get("kv_cache_dtype") or extra.get("kv_cache_dtype") or "auto"),
        tensor_parallel=int(vector.get("tensor_parallel", 1)),
        pipeline_parallel=pipeline,
        max_num_batched_tokens=int(vector.get("max_num_batched_tokens", 8192)),
        concurrent_batches=int(extra.get("concurrent_batches") or pipeline + 1),
        mamba_align=align,
        hybrid_manager=not (extra.get("nohyb") or extra.get("disable_hybrid_kv_cache_manager")),
        auto_length=bool(auto),
        context_parallel=int(extra.get("dcp") or extra.get("decode_context_parallel_size") or 1),
    )


def differences(vector: Mapping[str, Any]) -> list[str]:
    """What the planner gives otherwise than vLLM; [] when the vector is met exactly."""
    model = model_of(vector)
    try:
        plan = plan_kv_cache(model, [int(count) for count in vector["avail"]], options_of(vector, model))
    except KvCacheError as error:
        wanted = vector.get("error")
        if wanted is None:
            return [f"refused: {error}"]
        return [] if same_text(str(error), str(wanted)) else [f"error {str(error)!r}, vLLM {wanted!r}"]
    if vector.get("error") is not None:
        return [f"accepted with {plan.tokens} tokens, vLLM: {vector['error']}"]
    request, block = list(plan.needed_bytes), list(plan.block_bytes)
    got = {
        "num_blocks": plan.num_blocks,
        "bytes_per_block": block,
        "need_one_request": request,
        "kv_tokens": plan.tokens,
        "concurrency": round(plan.concurrency, 4),
        "max_model_len": plan.max_model_len,
    }
    return [
        f"{key} {value}, vLLM {vector[key]}"
        for key, value in got.items()
        if key in vector and same(value, vector[key]) is False
    ]


def same(value: object, wanted: object) -> bool:
    """Equality; concurrency to the digits that the vector has."""
    if isinstance(wanted, float) and isinstance(value, float):
        return abs(value - wanted) < 1e-4
    if isinstance(value, list) and isinstance(wanted, int):
        return set(value) == {wanted}
    return value == wanted


def same_text(mine: str, theirs: str) -> bool:
    """Whether one message is the beginning of the other (the vectors cut them)."""
    length = min(len(mine), len(theirs))
    return mine[:length] == theirs[:length]


def main(argv: list[str]) -> int:
    """Check every vector of the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    vectors = [
        json.loads(line) for line in parser.parse_args(argv).file.read_text(encoding="utf-8").splitlines() if line
    ]
    exact = 0
    for vector in vectors:
        found = differences(vector)
        exact += not found
        for line in found:
            print(f"{vector.get('name', '?')}: {line}")
    print(f"{exact}/{len(vectors)} exact")
    return int(exact != len(vectors) or not vectors)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
