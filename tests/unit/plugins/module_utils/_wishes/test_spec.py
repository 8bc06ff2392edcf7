"""What the role fleet says of an entry of vllm_models is what is accepted, no more and no less."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import WishError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes import read
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

from tests.tools import docs

SPEC = docs.model_options()
GROUPS = {"gpu_hosts": ["gpu1", "gpu2"]}
LEAST = {"name": "tiny", "source": "acme/tiny"}
WRONG: dict[str, list[Any]] = {
    "str": [7, [], {}],
    "int": ["two", 0.5, True, []],
    "float": ["half", True, []],
    "bool": ["yes", 1, []],
    "dict": [7, "word", ["word"]],
    "list": [7, {"a": 1}],
}


def problems(entry: dict[str, Any]) -> list[str]:
    try:
        read_wishes([LEAST | entry], groups=GROUPS)
    except WishError as error:
        return error.problems
    return []


def test_the_names_are_those_that_are_accepted() -> None:
    assert list(SPEC) == list(read._FIELDS)


def test_what_is_required_is() -> None:
    assert [name for name, option in SPEC.items() if option.get("required")] == list(LEAST)
    assert read_wishes([LEAST])
    for name in LEAST:
        with pytest.raises(WishError, match=f"has no {name}; every model needs one"):
            read_wishes([{key: value for key, value in LEAST.items() if key != name}])


@pytest.mark.parametrize("name", [name for name, option in SPEC.items() if "default" in option])
def test_the_default_is_what_leaving_it_out_means(name: str) -> None:
    assert read_wishes([LEAST | {name: SPEC[name]["default"]}]) == read_wishes([LEAST])


@pytest.mark.parametrize("name", SPEC)
def test_values_of_other_types_are_refused(name: str) -> None:
    for wrong in WRONG[SPEC[name].get("type", "str")]:
        assert any(f"].{name}: " in problem for problem in problems({name: wrong})), wrong


@pytest.mark.parametrize("name", [name for name, option in SPEC.items() if "choices" in option])
def test_the_choices_are_all_there_are(name: str) -> None:
    for choice in SPEC[name]["choices"]:
        assert all("is not supported yet" in problem for problem in problems({name: choice}))
    assert problems({name: "another"})


def test_the_keys_of_parallelism() -> None:
    keys = SPEC["parallelism"]["options"]
    whole = {key: option["default"] for key, option in keys.items()}
    (one,), _ = read_wishes([LEAST | {"parallelism": whole}])
    assert one.parallelism == read.Parallelism()
    for key, option in keys.items():
        assert problems({"parallelism": {key: WRONG[option["type"]][0]}})
    assert f"there are {', '.join(keys)}." in problems({"parallelism": {"zzz": 1}})[0]


@pytest.mark.parametrize(
    ("name", "piece"), [(name, piece) for name, option in SPEC.items() for piece in docs.said(option, "Example")]
)
def test_the_examples_are_accepted(name: str, piece: str) -> None:
    entry = yaml.safe_load(piece)
    assert list(entry) == [name]
    assert problems(entry) == []


@pytest.mark.parametrize(
    ("name", "piece"), [(name, piece) for name, option in SPEC.items() for piece in docs.said(option, "Refused")]
)
def test_what_is_said_to_be_refused_is(name: str, piece: str) -> None:
    entry = yaml.safe_load(piece)
    assert list(entry) == [name]
    (problem,) = problems(entry)
    assert problem.startswith(f"vllm_models[0].{name}")


def test_every_option_has_an_example_or_a_refusal() -> None:
    for name, option in SPEC.items():
        assert docs.said(option, "Refused"), name


def test_the_example_at_the_top_of_the_page_is_accepted() -> None:
    (block,) = re.findall(r"```yaml\n(vllm_models:.*?)```", (docs.ROOT / "docs/models.md").read_text(), re.DOTALL)
    wishes, warnings = read_wishes(yaml.safe_load(block)["vllm_models"])
    assert (len(wishes), warnings) == (2, [])
