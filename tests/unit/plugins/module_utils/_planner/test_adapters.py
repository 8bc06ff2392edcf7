"""Which options adapters need, and what is wrong with an adapter."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import WishError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.adapters import with_adapters
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.lora import without_lora
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import DEFAULT_VERSION
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

SQL = {"name": "sql", "source": "/srv/adapters/sql"}
BASE = "acme/Tiny-Llama"


def adapter(rank: Any = 8, base: str | None = BASE) -> dict[str, Any]:
    return {"source": "/srv/adapters/sql", "adapter": {"rank": rank, "base": base}}


def of_architecture(*names: str) -> dict[str, Any]:
    return {"sql": adapter(), "tiny": {"source": BASE, "config": {"architectures": list(names)}}}


def options(facts: dict[str, Any], lora: Any = (SQL,), **extra_args: Any) -> tuple[dict[str, Any], list[str]]:
    """The options of a model with adapters, and warnings."""
    model = {"name": "tiny", "source": BASE, "lora": list(lora), "extra_args": extra_args}
    wishes, warnings = with_adapters(read_wishes([model])[0], facts, "0.33.0")
    return dict(wishes[0].extra_args), warnings


def test_without_adapters_nothing_is_said() -> None:
    assert options({}, []) == ({}, [])


@pytest.mark.parametrize(("rank", "largest"), [(1, 16), (16, 16), (17, 32), (200, 256), (512, 512)])
def test_the_rank_is_the_next_that_vllm_allows(rank: int, largest: int) -> None:
    expected = {"enable-lora": True, "max-loras": 4, "max-lora-rank": largest, "max-cpu-loras": 16}
    assert options({"sql": adapter(rank)}) == (expected, [])


def test_their_number_changes_nothing_that_a_restart_would_need() -> None:
    many = [{"name": f"a{number}", "source": f"/srv/adapters/{number}"} for number in range(16)]
    known = {entry["name"]: adapter() for entry in many}
    assert options(known, many) == options(known, many[:1])


def test_what_the_inventory_says_counts() -> None:
    found, _ = options({"sql": adapter()}, max_loras=32, max_lora_rank=64)
    assert (found["max-loras"], found["max-lora-rank"], found["max-cpu-loras"]) == (32, 64, 32)


def test_one_that_was_not_read_is_planned_with_vllms_rank_and_a_warning() -> None:
    found, (warning,) = options({"sql": {"source": "/srv/adapters/sql", "problem": "there is no directory"}})
    assert found["max-lora-rank"] == 16
    assert warning == (
        "tiny: the rank of the adapter sql is not known (there is no directory). Above 16, set max-lora-rank in "
        "extra_args."
    )


@pytest.mark.parametrize("base", [BASE, "/data/tiny-llama/", "tiny", None])
def test_one_of_this_model_is_told_nothing(base: str | None) -> None:
    assert options({"sql": adapter(base=base)})[1] == []


def test_one_of_another_model_is_warned_of() -> None:
    (warning,) = options({"sql": adapter(base="acme/other")})[1]
    assert warning == "tiny: the adapter sql was made for acme/other, not for acme/Tiny-Llama"


@pytest.mark.parametrize(
    ("rank", "extra_args", "problem"),
    [
        (513, {}, "vllm_models[0].lora[0]: sql has rank 513; vLLM takes 512."),
        (
            64,
            {"max-lora-rank": 32},
            "vllm_models[0].lora[0]: sql has rank 64, and extra_args.max-lora-rank is 32; raise that, or leave it out.",
        ),
        (
            8,
            {"api-server-count": 2},
            (
                "vllm_models[0].extra_args: 'api-server-count' is above 1, and one API server only loads an adapter; "
                "leave it out, or lora."
            ),
        ),
        (
            8,
            {"max-cpu-loras": 2},
            (
                "vllm_models[0].extra_args: 'max-cpu-loras' is 2, and a batch may mix 4 (max-loras); raise it, or "
                "leave it out."
            ),
        ),
        (
            8,
            {"enable-lora": False},
            "vllm_models[0].extra_args: 'enable-lora' is false, and lora lists adapters; keep one of them.",
        ),
    ],
)
def test_what_no_engine_takes_is_refused_until_it_is_mended(
    rank: int, extra_args: dict[str, Any], problem: str
) -> None:
    with pytest.raises(WishError) as refused:
        options({"sql": adapter(rank)}, **extra_args)
    assert refused.value.problems == [problem]
    assert options({"sql": adapter(min(rank, 512))}, **dict.fromkeys(extra_args.keys() & {"max-lora-rank"}, 64))


@pytest.mark.parametrize(
    ("lora", "extra_args", "where", "out"),
    [
        ([SQL], {}, "lora", "lora"),
        ([], {"enable_lora": True}, "extra_args.enable-lora", "extra_args.enable-lora"),
        ([SQL], {"enable_lora": True}, "lora", "lora and extra_args.enable-lora"),
    ],
)
def test_a_model_that_vllm_has_no_adapters_for_is_refused(
    lora: Any, extra_args: dict[str, Any], where: str, out: str
) -> None:
    with pytest.raises(WishError) as raised:
        options(of_architecture("GPT2LMHeadModel"), lora, **extra_args)
    assert str(raised.value) == (
        f"vllm_models[0].{where}: vLLM 0.33.0 takes no adapters for GPT2LMHeadModel, the architecture of {BASE}. Leave "
        f"{out} out, and serve a model that the adapter is merged into."
    )
    assert "enable-lora" not in options(of_architecture("GPT2LMHeadModel"), [])[0], "the remedy"


@pytest.mark.parametrize(
    ("facts", "extra_args"),
    [
        (of_architecture("LlamaForCausalLM"), {}),
        (of_architecture("SomethingNewForCausalLM"), {}),
        (of_architecture("GPT2LMHeadModel", "LlamaForCausalLM"), {}),
        (of_architecture(), {}),
        ({"sql": adapter()}, {}),
        (of_architecture("GPT2LMHeadModel"), {"model_impl": "transformers"}),
    ],
    ids=["takes adapters", "unknown", "one of two", "none named", "not read", "run by transformers"],
)
def test_one_that_may_take_them_is_not(facts: dict[str, Any], extra_args: dict[str, Any]) -> None:
    assert options(facts, **extra_args)[0]["enable-lora"]


def test_each_release_has_architectures_of_its_own() -> None:
    name = "BertForSequenceClassification"  # takes them from 0.33 on
    assert [name in without_lora(version) for version in ("0.32.0+cpu", "0.33.0", "0.34.0", "main")] == [
        True,
        False,
        False,
        False,
    ]
    assert without_lora(DEFAULT_VERSION), "read the sources of a new release: tests/tools/vllm_lora.py"
