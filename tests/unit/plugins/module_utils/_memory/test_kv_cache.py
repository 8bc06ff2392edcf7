"""The KV planner: numbers of vLLM 0.33's own, and what holds for every cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import KvCacheError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.kv_cache import (
    KvOptions,
    group_layers,
    pipeline_partition,
    plan_kv_cache,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.regimes import KvRules
from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB
from hypothesis import given, settings
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[3] / "fixtures" / "models"


def model(name: str) -> ModelSpec:
    return read_model(json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))["config"])


LLAMA, LLAMA70 = "llama-3.1-8b-instruct", "llama-3.3-70b-instruct"
GEMMA, OSS, DEEPSEEK, NEXT = "gemma-3-27b-it", "gpt-oss-120b", "deepseek-v3", "qwen3-next-80b-a3b-instruct"

# Results of running the planner of vLLM 0.33.0: (model, options, GiB per worker, block bytes, blocks, request bytes,
# tokens, concurrency).
VECTORS: list[tuple[str, dict[str, Any], Sequence[float], int, int, int, int, float]] = [
    (LLAMA, {"max_model_len": 131072}, [50], 2097152, 25600, 17179869184, 409600, 3.125),
    (LLAMA, {"max_model_len": 131072, "dtype": "fp8"}, [50], 1048576, 51200, 8589934592, 819200, 6.25),
    (LLAMA, {"max_model_len": 131072}, [16 + 2 / 1024], 2097152, 8193, 17179869184, 131088, 1.0001),
    (LLAMA70, {"max_model_len": 131072, "tensor_parallel": 4}, [30], 1310720, 24576, 10737418240, 393216, 3.0),
    (LLAMA70, {"max_model_len": 131072, "tensor_parallel": 16}, [30], 655360, 49152, 5368709120, 786432, 6.0),
    (LLAMA70, {"max_model_len": 131072, "tensor_parallel": 4, "pipeline_parallel": 2, "concurrent_batches": 3},
     [30] * 4 + [28] * 4, 655360, 45875, 5368709120, 734000, 5.6),
    (GEMMA, {"max_model_len": 131072, "tensor_parallel": 2}, [30], 655360, 49152, 9650831360, 437488, 3.3378),
    (OSS, {"max_model_len": 131072}, [10], 589824, 18204, 5441126400, 258648, 1.9733),
    (DEEPSEEK, {"max_model_len": 163840, "tensor_parallel": 8, "block_size": 64}, [20], 4497408, 4774, 11513364480,
     305536, 1.8648),
    (NEXT, {"max_model_len": 262144, "mamba_align": False}, [40], 13369344, 3212, 6484131840, 1736095, 6.6227),
    (NEXT, {"max_model_len": 262144}, [40], 13369344, 3212, 6524239872, 1725423, 6.582),
    (NEXT, {"max_model_len": 262144, "tensor_parallel": 4}, [40], 3342336, 12850, 3242065920, 3472732, 13.2474),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "gib", "block", "blocks", "request_bytes", "tokens", "concurrency"), VECTORS
)
def test_vectors_of_vllm(
    name: str,
    options: dict[str, Any],
    gib: Sequence[float],
    block: int,
    blocks: int,
    request_bytes: int,
    tokens: int,
    concurrency: float,
) -> None:
    plan = plan_kv_cache(model(name), [int(size * GIB) for size in gib], KvOptions(**options))
    assert set(plan.block_bytes) == {block}
    assert plan.num_blocks == blocks
    assert set(plan.needed_bytes) == {request_bytes}
    assert plan.tokens == tokens
    assert plan.concurrency == pytest.approx(concurrency, abs=1e-4)


def test_the_length_that_fits_is_found() -> None:
    plan = plan_kv_cache(model(LLAMA), [10 * GIB], KvOptions(131072, auto_length=True))
    assert (plan.max_model_len, plan.tokens, plan.needed_bytes) == (81904, 81920, (10735321088,))


def test_the_null_block_is_kept_back() -> None:
    with pytest.raises(
        KvCacheError, match=r"\(131072\), \(16\.0 GiB KV cache.*estimated maximum model length is 131056"
    ):
        plan_kv_cache(model(LLAMA), [16 * GIB], KvOptions(131072))
    assert plan_kv_cache(model(LLAMA), [16 * GIB], KvOptions(131072), KvRules(null_block=False)).tokens == 131072


def test_windows_without_the_hybrid_manager_take_everything() -> None:
    with pytest.raises(KvCacheError, match=r"31\.0 GiB.*maximum model length is 126816") as caught:
        plan_kv_cache(model(GEMMA), [30 * GIB], KvOptions(131072, tensor_parallel=2, hybrid_manager=False))
    assert caught.value.max_model_len == 126816


def test_no_memory_at_all() -> None:
    with pytest.raises(KvCacheError, match="No available memory"):
        plan_kv_cache(model(LLAMA), [-GIB], KvOptions(4096))
    with pytest.raises(KvCacheError, match="single token"):
        plan_kv_cache(model(LLAMA), [3 << 20], KvOptions(4096, auto_length=True))


def test_tokens_before_0_21_are_whole_blocks_of_a_group() -> None:
    # Gemma 3 12B on an H100, vLLM 0.19: 48867 blocks in six groups are logged as 130,304 tokens (llm-d-planner PR 205).
    config = json.loads((FIXTURES / f"{GEMMA}.json").read_text(encoding="utf-8"))["config"]
    twelve = {**config["text_config"], "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
              "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256}  # fmt: skip
    rules = KvRules(1.5, tokens_by_concurrency=False, null_block=False, in_flight=False)
    plan = plan_kv_cache(read_model({**config, "text_config": twelve}), [48867 << 20], KvOptions(8192), rules)
    assert (len(plan.groups), plan.num_blocks, plan.tokens) == (6, 48867, 130304)


def test_an_indexer_adds_to_every_block() -> None:
    config = json.loads((FIXTURES / f"{DEEPSEEK}.json").read_text(encoding="utf-8"))["config"]
    sparse = read_model({**config, "model_type": "deepseek_v32", "index_head_dim": 128, "index_n_heads": 64})
    plan = plan_kv_cache(sparse, [20 * GIB], KvOptions(8192, tensor_parallel=8, block_size=64))
    assert plan.block_bytes == (61 * 64 * (576 * 2 + 132),)


@pytest.mark.parametrize(
    ("layers", "stages", "parts"),
    [(32, 1, (32,)), (32, 4, (8, 8, 8, 8)), (61, 2, (31, 30)), (61, 4, (15, 15, 16, 15)), (27, 4, (7, 7, 7, 6))],
)
def test_layers_of_pipeline_stages(layers: int, stages: int, parts: tuple[int, ...]) -> None:
    assert pipeline_partition(layers, stages) == parts


NAMES = st.sampled_from([LLAMA, GEMMA, OSS, DEEPSEEK, NEXT, "nvidia-nemotron-nano-9b-v2", "phi-3-mini-4k-instruct"])


@settings(max_examples=60, deadline=None)
@given(
    NAMES, st.integers(1 << 20, 200 * GIB), st.integers(1, 200000), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2])
)
def test_a_plan_is_within_its_bytes(name: str, memory: int, length: int, tensor: int, stages: int) -> None:
    options = KvOptions(length, tensor_parallel=tensor, pipeline_parallel=stages, concurrent_batches=stages + 1)
    try:
        plan = plan_kv_cache(model(name), [memory] * stages, options)
    except KvCacheError as refused:
        shorter = refused.max_model_len
        assert shorter < length
        if shorter:
            assert plan_kv_cache(model(name), [memory] * stages, replace(options, max_model_len=shorter)).num_blocks
        return
    for block, needed in zip(plan.block_bytes, plan.needed_bytes, strict=True):
        assert plan.num_blocks * block <= memory
        assert needed + block <= memory
    assert plan.concurrency >= 1
    assert sorted(i for group in plan.groups for i in group.layers) == sorted(
        i for i, layer in enumerate(model(name).layers) if layer.kind != "none"
    )


@settings(max_examples=40, deadline=None)
@given(NAMES, st.integers(8 * GIB, 100 * GIB), st.integers(0, 50 * GIB))
def test_more_bytes_never_give_less(name: str, memory: int, more: int) -> None:
    options = KvOptions(4096)
    assert (
        plan_kv_cache(model(name), [memory], options).tokens
        <= plan_kv_cache(model(name), [memory + more], options).tokens
    )


def test_groups_have_equal_blocks() -> None:
    for name in (GEMMA, OSS, NEXT):
        groups = group_layers(model(name), KvOptions(8192), KvRules())
        assert len({group.spec.page_bytes for group in groups}) == 1
