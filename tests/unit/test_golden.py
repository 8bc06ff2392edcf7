"""The plans of the fleets that people have are those that are stored, and what docs/plan.schema.json says a plan is."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit import fleets
from tests.unit.golden import FLEETS, PLANS, SAMPLES, TEXTS, plan_of, stored

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "plan.schema.json").read_text(encoding="utf-8"))
STORED = stored()
# With everything in it: sized, pinned, over hosts, and with a shape that was rejected on the way.
WHOLE = fleets.plan([{"name": "deepseek-v3"}], fleets.host("gpu1"), fleets.host("gpu2"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_the_plan_is_the_stored_one(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == STORED[path]


def test_no_file_is_left_over() -> None:
    assert {*TEXTS.iterdir(), *PLANS.iterdir()} == set(STORED)


def valid(plan: dict[str, Any]) -> None:
    jsonschema.validate(plan, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", FLEETS)
def test_the_plans_of_fleets_follow_the_schema(name: str) -> None:
    made = plan_of(name)
    if made is not None:
        valid(made)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_plans_follow_the_schema(name: str) -> None:
    made = json.loads((PLANS / f"{name}.json").read_text(encoding="utf-8"))["plan"]
    for instance in made["instances"]:
        instance.pop("effective", None)  # what serve.yml adds for the report
    valid(made)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda plan: plan.update(version=1), id="another version"),
        pytest.param(lambda plan: plan.pop("rollout"), id="a field is missing"),
        pytest.param(lambda plan: plan["instances"][0].update(surprise=1), id="a field too much"),
        pytest.param(lambda plan: plan["instances"][0]["nodes"][0].update(gpus=[0, 1]), id="GPUs of schema 1"),
        pytest.param(lambda plan: plan["instances"][0]["nodes"][0].update(env={}), id="a node of schema 1"),
        pytest.param(lambda plan: plan["instances"][0].update(task="sing"), id="another task"),
        pytest.param(lambda plan: plan["instances"][0]["endpoint"].update(port=70000), id="no port"),
        pytest.param(lambda plan: plan["instances"][0]["env"].update(NUMBER=1), id="a variable that is no text"),
        pytest.param(lambda plan: plan["instances"][0]["budget"]["error"].pop("total"), id="half an error band"),
    ],
)
def test_what_is_no_plan_does_not_follow_the_schema(spoil: Callable[[dict[str, Any]], Any]) -> None:
    made = copy.deepcopy(WHOLE)
    valid(made)
    spoil(made)
    with pytest.raises(jsonschema.ValidationError):
        valid(made)


def test_every_field_of_the_schema_is_explained() -> None:
    rows = re.findall(r"^\| `(\S+)` \| .+? \| (.*) \|$", (DOCS / "plan-schema.md").read_text(), re.MULTILINE)
    assert len(rows) > 60
    assert [name for name, meaning in rows if not meaning.strip()] == []
