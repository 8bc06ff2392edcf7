"""Is the KV planner exact? ``python tests/benchmarks/golden.py FILE.jsonl`` compares it with vectors of vLLM's own.

A line of the file holds what went in (``architecture``: fields of the model's config.json, ``avail`` bytes per worker,
``max_model_len``, parallel sizes, ``block_size``, ``max_num_batched_tokens``, ``options``) and what vLLM's planner made
of it (:data:`COMPARED`, or ``error``, the beginning of its message). Every one of these that a line has must be met. An
option that is not known here, or a line that cannot be read, counts as not met and is printed. The last line of the
output is ``N/N exact``; the exit code is 1 when it is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import KvCacheError, SizingError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.kv_cache import KvOptions, plan_kv_cache
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model

FIXTURES = ROOT / "tests" / "unit" / "fixtures" / "models"
COMPARED = ("num_blocks", "bytes_per_block", "need_one_request", "kv_tokens", "concurrency", "max_model_len")
# Sizes that the cache does not depend on, for architectures that come without them.
FILLER = {"hidden_size": 4096, "num_attention_heads": 32, "vocab_size": 32000, "intermediate_size": 8192}
# What the options of a vector are called: vLLM's own names, and short ones.
NAMES = {
    "auto": ("auto", "auto_len", "auto_length", "autofit", "auto_fit", "max_model_len_auto", "max_model_len"),
    "batches": ("concurrent_batches", "max_concurrent_batches"),
    "block_size": ("block_size",),
    "blocks": ("num_gpu_blocks_override", "num_blocks_override"),
    "caching": ("enable_prefix_caching", "prefix_caching", "align", "mamba_align"),
    "dcp": ("dcp", "dcp_size", "decode_context_parallel_size"),
    "dtype": ("kv_cache_dtype", "kv_dtype", "cache_dtype"),
    "mamba": ("mamba_cache_mode", "mamba_mode", "mamba"),
    "no_caching": ("no_enable_prefix_caching", "no_prefix_caching", "noprefix", "nopc"),
    "no_hybrid": ("nohyb", "no_hybrid", "disable_hybrid_kv_cache_manager"),
    "tokens": ("max_num_batched_tokens",),
}
KEYS = {spelling: name for name, spellings in NAMES.items() for spelling in spellings}


def model_of(vector: Mapping[str, Any]) -> ModelSpec:
    """The model of a vector: its architecture's fields.

    Those of a hybrid model, of which the fields rarely tell the whole, are completed by the fixture of its name.
    """
    given = {key: value for key, value in vector["architecture"].items() if key != "kv_cache_dtype"}
    known = fixture(str(vector.get("model")))
    if known and read_model(known).hybrid:
        return read_model({**known, **given})
    return read_model({**FILLER, **given})


def fixture(name: str) -> dict[str, Any]:
    """The config of a model among the unit tests' fixtures, or nothing."""
    for path in FIXTURES.glob("*.json"):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if name in (entry["model"], *entry.get("also", [])):
            return dict(entry["config"])
    return {}


def named_options(vector: Mapping[str, Any]) -> dict[str, Any]:
    """The vector's options by the names of :data:`NAMES`; raises :class:`ValueError` for one that is not there."""
    given = {key: value for key, value in (vector.get("options") or {}).items() if value is not None}
    unknown = sorted(given.keys() - KEYS.keys())
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}")
    return {KEYS[key]: value for key, value in given.items()}


def readings(vector: Mapping[str, Any], model: ModelSpec) -> Iterator[tuple[KvOptions, int | None]]:
    """The planner's options and the override of the blocks; more than one when the vector leaves some open.

    That is for states: whether prefix caching is on, and whether the kernels save checkpoints (they do so by GPU).
    """
    extra = named_options(vector)
    pipeline = int(vector.get("pipeline_parallel", 1))
    length = vector["max_model_len"]
    auto = extra.get("auto") in (True, 1, -1, "auto") or length in (-1, "auto")
    options = KvOptions(
        max_model_len=model.max_len if length in (-1, "auto") else int(length),
        block_size=int(extra.get("block_size") or vector.get("block_size") or 16),
        dtype=str(extra.get("dtype") or vector["architecture"].get("kv_cache_dtype") or "auto"),
        tensor_parallel=int(vector.get("tensor_parallel", 1)),
        pipeline_parallel=pipeline,
        max_num_batched_tokens=int(extra.get("tokens") or vector.get("max_num_batched_tokens") or 8192),
        concurrent_batches=int(extra.get("batches") or pipeline + 1),
        hybrid_manager=not extra.get("no_hybrid"),
        auto_length=auto,
        context_parallel=int(extra.get("dcp") or 1),
    )
    blocks = int(extra["blocks"]) if extra.get("blocks") else None
    if not model.hybrid:
        yield options, blocks
        return
    if "mamba" in extra:
        modes = [extra["mamba"] in ("align", True)]
    elif "caching" in extra or "no_caching" in extra:
        modes = [bool(extra.get("caching", not extra.get("no_caching")))]
    else:
        modes = [True, False]
    for align in modes:
        yield replace(options, mamba_align=align), blocks
        if align:
            yield replace(options, checkpoints={}), blocks


def differences(vector: Mapping[str, Any]) -> list[str]:
    """What the planner gives otherwise than vLLM; [] when the vector is met exactly."""
    try:
        model = model_of(vector)
        found = [compare(vector, model, options, blocks) for options, blocks in readings(vector, model)]
    except (SizingError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return [f"cannot be read: {error}"]
    return min(found, key=len)


def compare(vector: Mapping[str, Any], model: ModelSpec, options: KvOptions, blocks: int | None) -> list[str]:
    """The differences under one reading of the vector."""
    wanted = vector.get("error")
    try:
        plan = plan_kv_cache(model, [int(count) for count in vector["avail"]], options, blocks=blocks)
    except KvCacheError as error:
        if wanted is None:
            return [f"refused: {error}"]
        return [] if same_text(str(error), str(wanted)) else [f"error {str(error)!r}, vLLM {wanted!r}"]
    if wanted is not None:
        return [f"accepted with {plan.tokens} tokens, vLLM: {wanted}"]
    got = {
        "num_blocks": plan.num_blocks,
        "bytes_per_block": list(plan.block_bytes),
        "need_one_request": list(plan.needed_bytes),
        "kv_tokens": plan.tokens,
        "concurrency": round(plan.concurrency, 4),
        "max_model_len": plan.max_model_len,
    }
    if options.auto_length and vector["max_model_len"] in (-1, "auto", options.max_model_len):
        del got["max_model_len"]  # the vector has the length that was asked for; bytes and tokens tell the one found
    return [
        f"{key} {got[key]}, vLLM {vector[key]}"
        for key in COMPARED
        if key in got and key in vector and not same(got[key], vector[key])
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
    lines = [line for line in parser.parse_args(argv).file.read_text(encoding="utf-8").splitlines() if line.strip()]
    exact = 0
    for number, line in enumerate(lines, 1):
        try:
            vector = json.loads(line)
            name, found = vector.get("name", number), differences(vector)
        except (AttributeError, ValueError) as error:
            name, found = number, [f"cannot be read: {error}"]
        exact += not found
        for difference in found:
            print(f"{name}: {difference}")
    print(f"{exact}/{len(lines)} exact")
    return int(exact != len(lines) or not lines)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
