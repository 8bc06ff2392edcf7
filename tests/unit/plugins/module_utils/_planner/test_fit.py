"""A shape fits a kind of GPU with a context, or the refusal says what would do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import LEAST_CONTEXT, Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

from tests.unit.fleets import (
    LARGE,
    RTX4090,
    SMALL,
    T4,
    facts,
    first,
    host,
    plan,
    refusal,
    shapes,
)


def test_hosts_that_do_not_fit_the_chosen_shape_are_left_out() -> None:
    made = plan([SMALL | {"replicas": 3}], host("gpu1", 1, T4), host("gpu2", 4, RTX4090))
    assert {instance["endpoint"]["host"] for instance in made["instances"]} == {"gpu2"}
    (row,) = made["rejected"]
    assert (row["shape"], row["nearest_fit"]) == ("tensor 1 x pipeline 1 on T4", "tensor 1 x pipeline 1")
    assert row["needed_gib"] > row["available_gib"]


def test_shapes_that_were_rejected_say_why() -> None:
    one, two = plan([LARGE], host("gpu1"))["rejected"]
    assert one["reason"] == "the weights alone take 131.4 GiB per GPU; vLLM may use 72.8 GiB."
    assert two["shape"] == "tensor 2 x pipeline 1 on H100 80GB"
    assert "a margin for the error of these numbers" in two["reason"]
    assert two["needed_gib"] > two["available_gib"] == 72.77


def test_concurrency_is_a_constraint_that_costs_context() -> None:
    sixteen = first(plan([SMALL | {"concurrency": 16}], host("gpu1", 1)))
    assert sixteen["engine_args"]["max-num-seqs"] == 16
    assert LEAST_CONTEXT < sixteen["engine_args"]["max-model-len"] < 131072
    assert sixteen["budget"]["pinned"]["max_concurrency"] >= 16
    both = plan([SMALL | {"concurrency": 16, "context_length": 65536}], host("gpu1", 8))
    assert shapes(both) == {(SMALL["name"], 4, 1)}


def test_a_shape_that_holds_more_than_asked_for_gives_no_longer_context_than_the_models() -> None:
    assert first(plan([{"name": "gemma-2-9b-it"}], host("gpu1", 1)))["engine_args"]["max-model-len"] == 8192


def test_an_explicit_shape_is_checked() -> None:
    error = refusal([LARGE | {"parallelism": {"tensor": 2}, "context_length": 131072}], host("gpu1"))
    (row,) = error.rejected
    assert row["needed_gib"] > row["available_gib"]
    error = refusal([SMALL | {"parallelism": {"tensor": 3}}], host("gpu1"))
    assert "the number of attention heads (32) cannot be divided by tensor parallel size 3" in str(error)


def test_a_context_that_does_not_fit_names_the_one_that_does() -> None:
    error = refusal([SMALL | {"context_length": 131072}], host("gpu1", 1, RTX4090))
    (row,) = error.rejected
    assert row["nearest_fit"] == "context_length 33792 with tensor 1 x pipeline 1 on RTX 4090"
    assert row["knob"] == "Lower vllm_models[0].context_length to 33792."
    fits = plan([SMALL | {"context_length": 33792}], host("gpu1", 1, RTX4090))
    assert len(fits["instances"]) == 1


def test_a_context_beyond_the_models_own_is_refused_unless_vllm_is_told_so() -> None:
    wish = {"name": "qwen3-8b", "context_length": 65536}
    assert "the model's longest is 40960" in str(refusal([wish], host("gpu1", 1)))
    env = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    assert first(plan([{**wish, "env": env}], host("gpu1", 1)))["engine_args"]["max-model-len"] == 65536


def test_an_old_driver_is_refused_before_anything_is_installed() -> None:
    old = host("gpu1")
    old["gpu_facts"]["driver_version"] = "550.54.15"
    assert "driver 550; the default wheel of vLLM 0.33.0 needs branch 580 or newer" in str(refusal([SMALL], old))


def test_fp8_weights_need_no_fewer_gpus_on_a_card_that_is_too_old() -> None:
    assert "compute capability 7.5" in str(
        refusal([{"name": "gpt-oss-20b", "parallelism": {"tensor": 1}}], host("gpu1", 1, T4))
    )


def test_memory_that_is_the_hosts_too_is_not_sized() -> None:
    spark = ("NVIDIA GB10", 0.0, 0.0, "12.1", "host")
    made = plan([SMALL], host("gpu1", 1, spark, total_gib=None, reserved_gib=None))  # NVML has no memory to tell of
    assert first(made)["budget"]["confidence"] == "none"
    assert "GB10 shares its memory with the host; what is free there cannot be computed" in made["warnings"][0]
    assert "kv-cache-memory-bytes" not in first(made)["engine_args"]


@pytest.mark.parametrize("version", ["0.34.0", "nightly"])
def test_what_is_not_known_is_not_sized(version: str) -> None:
    made = plan([SMALL | {"parallelism": {"tensor": 1}}], host("gpu1"), version=version)
    assert shapes(made) == {(SMALL["name"], 1, 1)}
    assert first(made)["budget"]["confidence"] == "none"
    assert "it is not sized, because" in made["warnings"][0]


def test_a_model_without_facts_and_one_that_is_no_model() -> None:
    wishes, _ = read_wishes([SMALL | {"source": "a/b", "parallelism": {"tensor": 1}}], "0.33.0")
    no_model: dict[str, Any] = {SMALL["name"]: {"config": {}}}
    for sizer in (Sizer(), Sizer(Accounts(version="0.33.0")), Sizer(Accounts(no_model, "0.33.0"))):
        choice = sizer.choose(wishes[0], [])
        assert "it is not sized" in choice.warnings[0]


def test_facts_of_the_files_count_more_than_the_formula() -> None:
    wishes, _ = read_wishes([SMALL | {"source": "a/b"}], "0.33.0")
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 512}  # fmt: skip
    tensors = [{"name": "model.layers.*.mlp.down_proj.weight", "dtype": "BF16", "shape": [64, 128], "bytes": 471100}]
    model = Accounts({SMALL["name"]: {"config": config, "tensors": tensors}}, "0.33.0").model(wishes[0])
    assert (model.weights.total_bytes, model.weights.source) == (471100, "headers")  # type: ignore[union-attr]


def test_weights_that_fit_no_host_say_how_many_would_do() -> None:
    (row,) = refusal([{"name": "deepseek-v3"}], host("gpu1")).rejected
    assert row["reason"] == "the weights alone take 79.6 GiB per GPU; vLLM may use 72.8 GiB."
    assert row["needed_gib"] > row["available_gib"]
    assert row["nearest_fit"] == "tensor 8 x pipeline 2 over 2 hosts on H100 80GB"
    assert row["knob"] == (
        "Tensor 8 x pipeline 2 over 2 hosts would do, but it needs 16 GPUs over 2 alike hosts; there is 1. Add such "
        "hosts, or hosts with more of these GPUs; take larger GPUs, or a quantised or smaller model as "
        "vllm_models[0].source."
    )


def test_a_parallelism_that_is_too_small_for_the_weights() -> None:
    wish = {"name": "deepseek-v3", "parallelism": {"tensor": 4, "pipeline": 2}}
    (row,) = refusal([wish], host("gpu1"), host("gpu2")).rejected
    assert row["knob"] == "Set vllm_models[0].parallelism to auto."
    (row,) = refusal([wish], host("gpu1")).rejected
    assert row["nearest_fit"] == "about 10 x H100 80GB"
    assert row["knob"].endswith("or widen its parallelism.")


def test_what_is_overridden_is_named_where_it_does_not_go_with_the_rest() -> None:
    wish = SMALL | {"extra_args": {"hf-overrides": {"hidden_size": "wide"}}}
    assert "because with vllm_models[0].extra_args.hf-overrides, the fields of config.json do not go" in str(
        refusal([wish], host("gpu1"))
    )


def test_a_directory_without_weights_is_told() -> None:
    wishes, _ = read_wishes([SMALL | {"source": "/srv/models/llama"}], "0.33.0")
    written = facts(SMALL["name"])
    for known, warned in ((written, False), (written | {"path": "/srv/models/llama"}, True)):
        model = Accounts({SMALL["name"]: known}, "0.33.0").model(wishes[0])
        assert isinstance(model, ModelSpec)
        told = "there are no weights in /srv/models/llama: they are counted by its configuration"
        assert (told in model.warnings) == warned
