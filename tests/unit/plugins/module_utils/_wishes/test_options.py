"""Options of vllm serve: the catalogue, and the check of extra_args against it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.options import (
    check_options,
    known_releases,
    options_of,
)

from tests.tools import vllm_options

WHERE = "vllm_models[0].extra_args"


def check(extra_args: dict[str, Any], version: str = "0.32.0+cpu") -> tuple[dict[str, Any], list[str]]:
    problems: list[str] = []
    return check_options(extra_args, version, WHERE, problems), problems


def test_the_catalogue_is_as_its_tool_writes_it() -> None:
    assert vllm_options.written(vllm_options.read()) == vllm_options.CATALOGUE.read_text()


def test_the_catalogue_knows_what_each_release_has() -> None:
    assert known_releases() == ["0.32", "0.33"]
    old, new = options_of("0.32"), options_of("0.33.0")
    assert old is not None
    assert new is not None
    assert set(new) - set(old) == {"monokernel", "reasoning-effort-map", "sleep-mode-backend", "watchdog-config"}
    assert set(old) <= set(new)
    assert old["tp"] is old["tensor-parallel-size"]
    assert old["kv-cache-dtype"].choices
    assert new["kv-cache-dtype"].choices == old["kv-cache-dtype"].choices  # plug-ins bring more in 0.33


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ({"max_num_batched_tokens": "8k"}, {"max-num-batched-tokens": "8k"}),
        ({"--max-num-seqs": 8}, {"max-num-seqs": 8}),
        ({"asc": 2}, {"api-server-count": 2}),
        ({"device-memory-utilization": 0.5}, None),
        ({"enforce-eager": True}, {"enforce-eager": True}),
        ({"no-enable-prefix-caching": True}, {"enable-prefix-caching": False}),
        ({"enable-prefix-caching": False}, {"enable-prefix-caching": False}),
        ({"aggregate-engine-logging": False}, {}),  # vLLM has no negative form of it
        ({"compilation-config": {"mode": 2}}, {"compilation-config": {"mode": 2}}),
        ({"allowed-media-domains": ["a.example", "b.example"]}, {"allowed-media-domains": ["a.example", "b.example"]}),
    ],
)
def test_options_get_the_names_that_vllm_gives_them(given: dict[str, Any], checked: dict[str, Any] | None) -> None:
    result, problems = check(given)
    if checked is None:
        assert problems
    else:
        assert (result, problems) == (checked, [])


def test_newer_vllm_has_a_second_name_for_an_opposite() -> None:
    assert check({"disable-prefix-caching": True}, "0.33.0") == ({"enable-prefix-caching": False}, [])
    assert check({"disable-prefix-caching": True})[1] == [
        f"{WHERE}: vLLM 0.32.0+cpu has no option 'disable-prefix-caching'; did you mean 'enable-prefix-caching'?"
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"max-num-seq": 8}, ": vLLM 0.32.0+cpu has no option 'max-num-seq'; did you mean 'max-num-seqs'?"),
        (
            {"swap-space": 0},
            ": vLLM 0.32.0+cpu has no option 'swap-space'; `vllm serve --help=all` lists those there are.",
        ),
        (
            {"monokernel": True},
            ": vLLM 0.32.0+cpu has no option 'monokernel'; `vllm serve --help=all` lists those there are.",
        ),
        (
            {"tensor_parallel_size": 2},
            ": 'tensor_parallel_size' is not for extra_args: the plan says it. Set parallelism.tensor.",
        ),
        ({"tp": 2}, ": 'tp' is not for extra_args: the plan says it. Set parallelism.tensor."),
        (
            {"api-key": "s3cret"},
            ": 'api-key' is not for extra_args: it would stand in readable files. Set vllm_api_key.",
        ),
        (
            {"compilation-config.mode": 2},
            ": write 'compilation-config.mode' as a mapping, compilation-config: {mode: ...}.",
        ),
        ({"seed": 1, "--seed": 2}, ": '--seed' names 'seed' a second time; keep one."),
        ({"enforce-eager": "yes"}, ".enforce-eager: it is a switch: write true or false, not 'yes'."),
        ({"max-num-seqs": True}, ".max-num-seqs: it takes a value, and there is none."),
        ({"max-num-seqs": None}, ".max-num-seqs: it takes a value, and there is none."),
        ({"max-num-seqs": "many"}, ".max-num-seqs: it takes a number, not 'many'."),
        ({"max-num-seqs": [1, 2]}, ".max-num-seqs: it takes one value, not a list."),
        (
            {"lora-target-modules": [{"name": "a"}]},
            ".lora-target-modules: it takes a list of plain values; write a mapping as JSON text.",
        ),
        ({"dtype": "int8"}, ".dtype: 'int8' is not one of auto, bfloat16, float, float16, float32, half."),
        (
            {"dtype": "bfloat61"},
            ".dtype: 'bfloat61' is not one of auto, bfloat16, float, float16, float32, half; did you mean 'bfloat16'?",
        ),
        ({"max-num-seqs": 0}, ".max-num-seqs: 0 is too little; it is at least 1."),
        ({"max-num-seqs": -4}, ".max-num-seqs: -4 is too little; it is at least 1."),
        ({"max-loras": 0}, ".max-loras: 0 is too little; it is at least 1."),
        ({"max-cpu-loras": 0}, ".max-cpu-loras: 0 is too little; it is at least 1."),
        ({"cpu-offload-gb": -1}, ".cpu-offload-gb: -1 is too little; it is at least 0."),
        ({"block-size": 7}, ".block-size: 7 is too little; it is at least 16."),
        ({"block-size": "24"}, ".block-size: '24' is no multiple of 16, which kernels of attention need."),
        ({"hf-overrides": "[1]"}, ".hf-overrides: '[1]' is no mapping."),
        ({"hf_overrides": 3}, ".hf_overrides: 3 is no mapping."),
        (
            {"hf-overrides": '{"rope_scaling": '},
            ".hf-overrides: it is no JSON (Expecting value: line 1 column 18 (char 17)); write it as a mapping.",
        ),
    ],
)
def test_every_mistake_is_named(given: dict[str, Any], problem: str) -> None:
    assert check(given)[1] == [WHERE + problem]


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
def test_a_quantisation_that_vllm_does_not_have_is_told_with_the_nearest(version: str) -> None:
    (problem,) = check({"quantization": "fp9"}, version)[1]
    assert problem.startswith(f"{WHERE}.quantization: 'fp9' is not one of auto_awq, auto_gptq, awq,")
    assert problem.endswith("did you mean 'fp8'? If a plug-in of vLLM brings it, name that in env.VLLM_PLUGINS.")
    assert check({"quantization": "fp8", "kv-cache-dtype-skip-layers": ["0"]}, version)[1] == []


def test_values_that_are_right_pass() -> None:
    given = {
        "hf-overrides": '{"a": 1}',
        "limit-mm-per-prompt": {"image": 0},
        "block-size": 32,
        "max-num-seqs": "256",
        "max-num-batched-tokens": "8k",
        "seed": -1,
        "quantization": "compressed-tensors",
    }
    assert check(given) == (given, [])


def test_a_release_that_is_not_known_lets_options_through_but_not_those_of_the_plan() -> None:
    assert options_of("0.99.0") is None
    assert check({"brand_new": 1, "brand-old": False}, "0.99.0") == ({"brand-new": 1, "brand-old": False}, [])
    assert check({"port": 1}, "0.99.0")[1] == [f"{WHERE}: 'port' is not for extra_args: the plan says it. Set port."]
