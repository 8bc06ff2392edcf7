from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.work import Work, work_of

from tests.unit.fleets import facts


def work(name: str) -> Work:
    return work_of(read_model(facts(name)["config"]))


def test_a_dense_model_reads_all_but_the_table_of_its_vocabulary() -> None:
    # 8,030,261,248 parameters (the model card), of which the table of the vocabulary has 128,256 x 4,096.
    read = 8_030_261_248 - 128_256 * 4096
    found = work("llama-3.1-8b-instruct")
    assert found.shared_bytes == pytest.approx(2 * read, rel=0.001)
    assert found.active_weights == pytest.approx(read, rel=0.001)
    assert found.weight_bytes(1) == found.weight_bytes(1000)
    assert found.kv_bytes(1000) == 1000 * 32 * 2 * 8 * 128 * 2
    assert found.attention_width == 32 * 4096


def test_more_tokens_read_more_experts() -> None:
    found = work("qwen3-30b-a3b")
    assert found.active_weights == pytest.approx(3.0e9, rel=0.1)  # its name says 3 billion
    one, all_of_them = found.weight_bytes(1), found.weight_bytes(10_000)
    assert one - found.shared_bytes == pytest.approx(found.expert_bytes * 8 / 128)
    assert one < found.weight_bytes(16) < all_of_them
    assert all_of_them == pytest.approx(found.shared_bytes + found.expert_bytes)


def test_a_window_is_the_most_that_is_read() -> None:
    found = work("gpt-oss-120b")
    full, windowed = found.kv_bytes(128), found.kv_bytes(256)
    assert full < windowed < 2 * full
    assert found.bits == 4


def test_latent_attention_keeps_one_vector() -> None:
    found = work("deepseek-v3")
    assert found.kv_heads == 1
    assert found.kv_bytes(1) == 61 * 576 * 2


def test_a_narrow_cache_is_read_faster() -> None:
    model = read_model(facts("llama-3.1-8b-instruct")["config"])
    assert work_of(model, "fp8").kv_bytes(1000) == work_of(model).kv_bytes(1000) / 2


def test_a_state_has_one_size() -> None:
    found = work("qwen3-next-80b-a3b-instruct")
    assert found.state_bytes > 0
    assert found.kv_bytes(1000) == 1000 * 12 * 2 * 2 * 256 * 2
