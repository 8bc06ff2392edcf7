"""The module daemon_json, from its arguments to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.modules import daemon_json

from tests.unit.plugins.conftest import RunModule

FOREIGN = '{"data-root": "/srv/docker", "log-driver": "json-file"}'
MERGED = {"data-root": "/srv/docker", "log-driver": "json-file", "live-restore": True}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(FOREIGN)
    path.chmod(0o600)
    return path


def run(run_module: RunModule, file: Path, settings: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    temporary = file.parent / "remote"
    temporary.mkdir(exist_ok=True)
    return run_module(
        daemon_json,
        path=str(file),
        settings=settings,
        _ansible_remote_tmp=str(temporary),
        _ansible_diff=True,
        **arguments,
    )


def test_settings_are_merged_and_the_old_file_is_kept(run_module: RunModule, file: Path) -> None:
    result = run(run_module, file, {"live-restore": True})

    assert result["changed"]
    assert result["settings"] == MERGED
    assert json.loads(file.read_text()) == MERGED
    assert file.stat().st_mode & 0o777 == 0o600
    assert Path(result["backup_file"]).read_text() == FOREIGN
    assert result["diff"]["before"] == FOREIGN
    assert result["diff"]["after"] == file.read_text()

    assert not run(run_module, file, {"live-restore": True})["changed"]


def test_a_file_that_says_it_already_is_left_byte_for_byte(run_module: RunModule, file: Path) -> None:
    result = run(run_module, file, {"log-driver": "json-file"}, validate="false")

    assert not result["changed"]
    assert "backup_file" not in result
    assert file.read_text() == FOREIGN


def test_a_missing_file_is_made(run_module: RunModule, tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    result = run(run_module, path, {"live-restore": True})

    assert result["changed"]
    assert "backup_file" not in result
    assert json.loads(path.read_text()) == {"live-restore": True}
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_link_stays_one(run_module: RunModule, file: Path) -> None:
    link = file.with_name("link.json")
    link.symlink_to(file)

    assert run(run_module, link, {"live-restore": True})["changed"]

    assert link.is_symlink()
    assert json.loads(file.read_text()) == MERGED


def test_check_mode_tells_and_validates_without_touching_anything(run_module: RunModule, tmp_path: Path) -> None:
    path = tmp_path / "not-yet" / "daemon.json"
    arguments = {"path": str(path), "settings": {"live-restore": True}, "_ansible_check_mode": True}
    arguments |= {"_ansible_remote_tmp": str(tmp_path), "_ansible_diff": True}

    result = run_module(daemon_json, **arguments, validate="grep live-restore %s")
    assert result["changed"]
    assert json.loads(result["diff"]["after"]) == {"live-restore": True}
    assert "Nothing was changed" in run_module(daemon_json, **arguments, validate="grep debug %s")["msg"]
    assert not path.parent.exists()


def test_what_the_engine_does_not_accept_never_gets_there(run_module: RunModule, file: Path) -> None:
    refuse = file.with_name("refuse")
    refuse.write_text('#!/bin/sh\necho "unknown directive in $1" >&2\nexit 1\n')
    refuse.chmod(0o755)

    result = run(run_module, file, {"nonsense": True}, validate=f"{refuse} %s")

    assert result["failed"]
    assert f"It answers: unknown directive in {file}" in result["msg"]
    assert file.read_text() == FOREIGN
    assert list(file.parent.glob("*~")) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{\n"debug": true,\n}', "line 3"),
        (b'{"debug": "\xff"}', "not UTF-8 text (byte 11"),
        (b"7", "not a JSON object"),
    ],
)
def test_a_broken_file_is_named_and_left_alone(
    run_module: RunModule, file: Path, content: bytes, complaint: str
) -> None:
    file.write_bytes(content)

    result = run(run_module, file, {})

    assert result["failed"]
    assert str(file) in result["msg"]
    assert complaint in result["msg"]
    assert file.read_bytes() == content
