"""The adapters of an engine, at its start and while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.adapters import arguments_file, reconcile, steps
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError

from tests.stand_in.__main__ import adapters_of
from tests.stand_in.server import Engine, Settings
from tests.unit.plugins.served import client, serving


def adapter(name: str, source: str | Path) -> dict[str, str]:
    return {"name": name, "source": str(source)}


def test_what_is_appended_to_the_command_is_what_vllm_reads() -> None:
    words = json.loads(arguments_file([adapter("sql", "/a b"), adapter("py", "/py")], "tiny"))
    assert words[0] == "--lora-modules"
    assert json.loads(words[1]) == {"name": "sql", "path": "/a b", "base_model_name": "tiny"}
    assert adapters_of(words[1:]) == {"sql": "/a b", "py": "/py"}


def test_without_adapters_nothing_is_appended() -> None:
    assert json.loads(arguments_file([], "tiny")) == []


LISTED: dict[str, dict[str, Any]] = {
    "tiny": {"root": "/srv/tiny", "parent": None},
    "old": {"root": "/old", "parent": "tiny"},
    "moved": {"root": "/before", "parent": "tiny"},
    "kept": {"root": "/kept", "parent": "tiny"},
}


def test_what_goes_comes_and_moves() -> None:
    found = steps(LISTED, [adapter("kept", "/kept"), adapter("moved", "/after"), adapter("new", "/new")])
    assert [(step.path, dict(step.body)) for step in found] == [
        ("/v1/unload_lora_adapter", {"lora_name": "old"}),
        ("/v1/load_lora_adapter", {"lora_name": "moved", "lora_path": "/after", "load_inplace": True}),
        ("/v1/load_lora_adapter", {"lora_name": "new", "lora_path": "/new"}),
    ]
    assert [step.says for step in found][1] == "moved is served from /after, before from /before"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with serving(Settings(models=["tiny"], takes_adapters=True)) as one:
        yield one


def written(place: Path) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text("{}")
    return place


def test_an_engine_that_runs_is_brought_to_it_and_the_second_time_nothing_is_done(
    engine: Engine, tmp_path: Path
) -> None:
    wanted = [adapter("sql", written(tmp_path / "sql"))]
    assert reconcile(client(engine), wanted) == [f"sql is served from {tmp_path}/sql"]
    assert reconcile(client(engine), wanted) == []
    base, own = (client(engine).complete(name, "Say hello.", 2) for name in ("tiny", "sql"))
    assert base != own
    assert reconcile(client(engine), []) == ["sql is not served any more"]
    with pytest.raises(ApiError, match="The model `sql` does not exist"):
        client(engine).complete("sql", "Say hello.", 2)


def test_one_that_is_not_there_is_told(engine: Engine) -> None:
    with pytest.raises(ApiError, match="No adapter found for /nowhere"):
        reconcile(client(engine), [adapter("sql", "/nowhere")])


def test_an_engine_that_takes_none_is_told(engine: Engine, tmp_path: Path) -> None:
    engine.settings.takes_adapters = False
    wanted: list[Any] = [adapter("sql", written(tmp_path / "sql"))]
    with pytest.raises(ApiError, match=r"/v1/load_lora_adapter .* answered HTTP 404"):
        reconcile(client(engine), wanted)
