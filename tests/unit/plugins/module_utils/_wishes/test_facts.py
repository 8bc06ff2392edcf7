"""What somebody writes down of models by hand."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.facts import facts_problems


@pytest.mark.parametrize(
    ("known", "problem"),
    [
        (None, ": is empty; write {config: ...} with the content of config.json."),
        ("8b", ": is '8b'; write {config: ...} with the content of config.json."),
        ([1], ": is a list; write {config: ...} with the content of config.json."),
        ({"config": None}, ".config: is empty; write the content of config.json there."),
        ({"config": "config.json"}, ".config: is 'config.json'; write the content of config.json there."),
        ({"confg": {"a": 1}}, ": unknown key 'confg'; did you mean 'config'?"),
        ({"hidden_size": 4096}, ": unknown key 'hidden_size'; the content of config.json stands below config."),
        (
            {"config": {"a": 1}, "safetensors_bytes": -1000000000000},
            ".safetensors_bytes: -1000000000000 is no size of weights; write their bytes, or leave it out.",
        ),
        (
            {"config": {"a": 1}, "safetensors_bytes": 10**30},
            f".safetensors_bytes: {10**30} is no size of weights; write their bytes, or leave it out.",
        ),
        (
            {"config": {"a": 1}, "safetensors_bytes": 1.5},
            ".safetensors_bytes: 1.5 is no size of weights; write their bytes, or leave it out.",
        ),
        (
            {"config": {"a": 1}, "tensors": [{"name": "a"}]},
            ".tensors: is no list of tensors with name and bytes; leave it out, the configuration tells.",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(known: Any, problem: str) -> None:
    assert list(facts_problems({"a": known})) == [f"fleet_model_facts.a{problem}"]


def test_what_model_facts_returns_and_what_people_write_is_right() -> None:
    read = {
        "source": "acme/a",
        "revision": "abc",
        "path": None,
        "config": {"hidden_size": 1},
        "generation": None,
        "embeds": False,
        "chat_template": False,
        "tensors": [{"name": "a", "dtype": "BF16", "shape": [1], "count": 1, "bytes": 2}],
        "safetensors_bytes": 2,
        "bytes_from": "headers",
    }
    problem = {"source": "acme/b", "problem": "it is not there"}
    assert list(facts_problems({"a": read, "b": problem, "c": {"config": {}, "safetensors_bytes": "17"}})) == []
