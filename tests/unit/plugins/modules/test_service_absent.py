"""The module service_absent, from its arguments to its JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.modules import service_absent

from tests.unit.plugins.conftest import RunModule


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(service_absent, "ROOT", tmp_path)
    (tmp_path / "etc/vllm").mkdir(parents=True)
    (tmp_path / "etc/vllm/secrets.env").write_text("s3cret")
    return tmp_path


GIVEN = {"files": ["/etc/vllm/secrets.env"], "emptied": ["/etc/vllm"]}


def test_check_mode_shows_what_would_go_and_leaves_it(run_module: RunModule, root: Path) -> None:
    result = run_module(service_absent, **GIVEN, _ansible_check_mode=True)
    assert (result["changed"], result["removed"]) == (True, [f"{root}/etc/vllm/secrets.env goes"])
    assert "s3cret" not in str(result["diff"])
    assert (root / "etc/vllm/secrets.env").exists()


def test_a_second_run_changes_nothing(run_module: RunModule, root: Path) -> None:
    first, second = (run_module(service_absent, **GIVEN) for _ in "12")
    assert (first["changed"], second["changed"]) == (True, False)
    assert not (root / "etc/vllm").exists()
