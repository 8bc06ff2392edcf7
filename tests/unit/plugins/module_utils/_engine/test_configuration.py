"""What engines are started from, and which of them have to start anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.configuration import (
    Unit,
    environment_file,
    options_file,
    units_from_properties,
    work_to_do,
)
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


def without_surrogates(value: Any) -> Any:
    """Half a character cannot be written to a file; nothing that Ansible read from one has any."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode())


@given(st.dictionaries(st.text(min_size=1), JSON, max_size=4))
def test_yaml_reads_the_options_as_they_were_given(options: dict[str, Any]) -> None:
    options = without_surrogates(options)
    assert yaml.safe_load(options_file(options, "# Managed\n")) == options


def test_options_stand_one_a_line_by_name() -> None:
    text = options_file(
        {"port": 8000, "enforce-eager": True, "compilation-config": {"mode": 2}, "rate": 1e-05}, "# Mine\n"
    )
    assert text == '# Mine\ncompilation-config: {"mode": 2}\nenforce-eager: true\nport: 8000\nrate: 1.0e-05\n'


def test_the_environment_is_quoted_as_systemd_reads_it() -> None:
    assert (
        environment_file({"B": 'say "hi" \\ bye', "A": 1}, "# Mine\n") == '# Mine\nA="1"\nB="say \\"hi\\" \\\\ bye"\n'
    )


def test_systemd_tells_of_several_units_at_once() -> None:
    output = (
        "Id=vllm@a-1.service\nActiveState=active\nUnitFileState=enabled\n\n"
        "Id=vllm@b-1.service\nActiveState=inactive\nUnitFileState=disabled\n\n"
        "Id=vllm@c-1.service\nActiveState=activating\nUnitFileState=enabled-runtime\n"
    )
    assert units_from_properties(output, {"a-1": 12.5}) == {
        "a-1": Unit("active", True, 12.5),
        "b-1": Unit("inactive", False, 0),
        "c-1": Unit("activating", True, 0),
    }


RUNS = Unit("active", True, 100)


@pytest.mark.parametrize(
    ("unit", "touched", "changing", "work"),
    [
        pytest.param(RUNS, 90, [], {}, id="nothing to do"),
        pytest.param(RUNS, 110, [], {"restart", "disturbed"}, id="an interrupted run owes a restart"),
        pytest.param(RUNS, 90, ["a-1"], {"restart", "disturbed"}, id="a file will change"),
        pytest.param(Unit("active", True, 0), 90, [], {"restart", "disturbed"}, id="nobody knows since when it runs"),
        pytest.param(Unit("active", False, 100), 90, [], {"start"}, id="not at the next boot"),
        pytest.param(Unit(), 90, ["a-1"], {"start"}, id="new"),
        pytest.param(Unit("failed", True), 90, ["a-1"], {"start"}, id="failed: there is nobody to drain"),
        pytest.param(Unit("activating", True, 100), 90, [], {"start"}, id="systemd is about to start it again"),
        pytest.param(Unit("activating", True, 100), 90, ["a-1"], {"restart", "start"}, id="it waits for the old path"),
    ],
)
def test_what_is_wanted_is_compared_with_what_is_there(
    unit: Unit, touched: float, changing: list[str], work: set[str]
) -> None:
    found = work_to_do(["a-1"], {"a-1": unit}, {"a-1": touched}, changing)
    assert vars(found) == {
        name: ["a-1"] if name in work else [] for name in ("restart", "start", "remove", "disturbed")
    }


def test_what_is_not_wanted_any_more_has_to_be_drained_if_it_runs() -> None:
    found = work_to_do([], {"a-1": RUNS, "b-1": Unit()}, {}, [])
    assert (found.remove, found.disturbed, found.start) == (["a-1", "b-1"], ["a-1"], [])
