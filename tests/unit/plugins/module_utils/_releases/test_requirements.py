"""What releases of vLLM need: the wheels' own numbers, and that the tables are in order."""

from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.regimes import REGIMES
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.requirements import (
    REQUIREMENTS,
    driver_floor,
    requirements_of,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import DEFAULT_VERSION


@pytest.mark.parametrize(
    ("version", "branch", "python"),
    [
        ("0.8.5", 525, (3, 9)),
        ("0.11.0", 525, (3, 9)),
        ("0.11.1", 525, (3, 10)),
        ("0.19.1", 525, (3, 10)),
        ("v0.20.0", 580, (3, 10)),
        ("0.31.0", 580, (3, 10)),
        ("0.32", 580, (3, 11)),
        ("0.33.0+cpu", 580, (3, 11)),
        ("0.99.0", 580, (3, 11)),
    ],
)
def test_drivers_and_pythons_of_the_wheels(version: str, branch: int, python: tuple[int, int]) -> None:
    needed = requirements_of(version)
    assert needed is not None
    assert (needed.driver_branch, needed.python) == (branch, python)


def test_what_is_no_version_needs_nothing_that_is_known() -> None:
    assert (requirements_of("?"), requirements_of(None), driver_floor("?")) == (None, None, None)


def test_the_tables_are_in_order_and_reach_the_default() -> None:
    for table in (REGIMES, REQUIREMENTS):
        since = [line.since for line in table]
        assert since == sorted(set(since))
    assert requirements_of(DEFAULT_VERSION) == REQUIREMENTS[-1]
