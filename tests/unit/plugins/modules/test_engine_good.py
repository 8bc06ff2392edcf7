"""The module engine_good: what the engines of a host were started from, kept and restored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import good as kept_good
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import places
from ansible_collections.gpuhosts.vllm.plugins.modules import engine_good

from tests.unit.plugins.conftest import RunModule

Good = Callable[..., dict[str, Any]]
INSTANCE = {"id": "tiny-1", "model": "tiny", "engine_args": {"port": 8000}, "env": {"A": "1"}}


@pytest.fixture
def good(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Good:
    """Run the module on files below tmp_path: the options and the secrets of an instance, and the link."""
    monkeypatch.setattr(places.os, "chown", lambda *_: None)  # only root gives files away
    for name in ("instances", "versions/1", "versions/2"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "instances/tiny-1.yaml").write_text("port: 8000\n")
    (tmp_path / "secrets.env").write_text('VLLM_API_KEY="hidden"\n')
    (tmp_path / "secrets.env").chmod(0o600)
    (tmp_path / "current").symlink_to(tmp_path / "versions/1")

    def run(state: str, **more: Any) -> dict[str, Any]:
        paths = [str(tmp_path / name) for name in ("instances/*.yaml", "secrets.env", "current")]
        usual = {"file": str(tmp_path / "good/last.json"), "paths": paths, "mark": str(tmp_path / "facts.d/back.fact")}
        return run_module(engine_good, state=state, **(usual | {"instances": [INSTANCE]} | more))

    return run


def test_what_answered_is_kept_for_root_only_and_once(good: Good, tmp_path: Path) -> None:
    assert (good("kept")["changed"], good("kept")["changed"]) == (True, False)
    assert (tmp_path / "good/last.json").stat().st_mode & 0o777 == 0o600
    assert "env" not in json.loads((tmp_path / "good/last.json").read_text())["instances"][0]


def test_everything_is_as_it_was_and_the_host_tells_why(good: Good, tmp_path: Path) -> None:
    good("kept")
    before = kept_good.read(tmp_path / "good/last.json")
    (tmp_path / "instances/tiny-1.yaml").write_text("port: 8001\n")
    (tmp_path / "instances/new-1.yaml").write_text("port: 8002\n")
    (tmp_path / "secrets.env").unlink()
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path / "versions/2")

    result = good("restored", reason="it says nothing", instances=[])

    assert [one["id"] for one in result["instances"]] == ["tiny-1"]
    assert (tmp_path / "instances/tiny-1.yaml").read_text() == "port: 8000\n"
    assert not (tmp_path / "instances/new-1.yaml").exists()
    assert (tmp_path / "secrets.env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "current").readlink() == tmp_path / "versions/1"
    assert kept_good.read(tmp_path / "good/last.json") == before
    told = json.loads((tmp_path / "facts.d/back.fact").read_text())
    assert told["reason"] == "it says nothing"
    assert told["since"] > 1700000000


def test_what_did_not_differ_keeps_its_age(good: Good, tmp_path: Path) -> None:
    """An engine that is older than one of its files counts as one that runs from older files."""
    good("kept")
    os.utime(tmp_path / "instances/tiny-1.yaml", (7, 7))
    (tmp_path / "secrets.env").write_text("")
    assert good("restored")["files"] == [str(tmp_path / "secrets.env")]
    assert (tmp_path / "instances/tiny-1.yaml").stat().st_mtime == 7


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_without_anything_kept_nothing_is_done(good: Good, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "good").mkdir()
        (tmp_path / "good/last.json").write_text(content)
    result = good("restored")
    assert (result["there"], result["changed"], result["files"]) == (False, False, [])
    assert not (tmp_path / "facts.d").exists()


def test_a_release_that_is_gone_is_named_and_nothing_is_changed(good: Good, tmp_path: Path) -> None:
    good("kept")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path / "versions/2")
    (tmp_path / "versions/1").rmdir()
    assert f"needs {tmp_path / 'versions/1'}, which is not there any more" in good("restored")["msg"]
    assert (tmp_path / "current").readlink() == tmp_path / "versions/2"


def test_the_next_one_that_answers_takes_the_mark_away(good: Good, tmp_path: Path) -> None:
    good("kept")
    good("restored")
    assert good("kept")["files"] == [str(tmp_path / "facts.d/back.fact")]
    assert not (tmp_path / "facts.d/back.fact").exists()


def test_what_a_start_took_is_remembered(good: Good, tmp_path: Path) -> None:
    good("kept", seconds={"tiny-1": 41.2})
    (tmp_path / "secrets.env").write_text("")
    good("kept")
    assert json.loads((tmp_path / "good/last.json").read_text())["seconds"] == {"tiny-1": 41.2}
