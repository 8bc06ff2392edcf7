"""The filter that turns a fleet plan into a page."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.filter.plan_report import plan_report

EMPTY: dict[str, Any] = {"version": 1, "instances": [], "rejected": [], "warnings": []}


def test_the_page_shows_plan_and_hosts() -> None:
    html = plan_report(
        EMPTY, [{"name": "gpu9", "address": "10.0.0.19", "gpu_facts": {"gpus": [], "reason": "no driver"}}]
    )
    assert html.startswith("<!DOCTYPE html>")
    assert "gpu9" in html
    assert "no driver" in html


@pytest.mark.parametrize("nonsense", [{}, {**EMPTY, "warnings": None}, {**EMPTY, "instances": [{"id": "x"}]}])
def test_what_is_no_plan_is_said(nonsense: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="wants a fleet plan"):
        plan_report(nonsense)
