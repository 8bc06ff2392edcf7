"""The plans of the fleets that people have are those that are stored."""

from __future__ import annotations

import pytest

from tests.unit.golden import FLEETS, TEXTS, shown


@pytest.mark.parametrize("name", FLEETS)
def test_the_plan_is_the_stored_one(name: str) -> None:
    assert shown(name) == (TEXTS / f"{name}.txt").read_text(encoding="utf-8")


def test_no_text_is_left_over() -> None:
    assert {path.stem for path in TEXTS.iterdir()} == set(FLEETS)
