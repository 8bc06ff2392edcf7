"""The module daemon_json, from its arguments to the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.docker import Engine
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


# Docker runs when there is a file "runs"; it starts with no settings that say bad, and never where a file "broken" is.
SYSTEMCTL = """#!/bin/sh
cd "$HOST"
echo "$*" >> told
case "$1" in
show) echo 0123456789abcdef ;;
restart) rm -f runs; [ -e broken ] || grep -q bad daemon.json 2>/dev/null && exit 1; touch runs ;;
esac
exit 0
"""
JOURNALCTL = """#!/bin/sh
echo 'time="..." level=info msg="Starting up"'
echo "failed to start daemon: bad is not good"
echo "docker.service: Failed with result 'exit-code'."
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose Docker reads daemon.json below it."""
    (tmp_path / "bin").mkdir()
    for name, text in {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOST", str(tmp_path))
    monkeypatch.setattr(daemon_json, "ROOT", tmp_path)
    return tmp_path


def told(host: Path) -> list[str]:
    return (host / "told").read_text().splitlines() if (host / "told").exists() else []


def test_the_engine_takes_up_what_has_changed_and_nothing_else(run_module: RunModule, host: Path, file: Path) -> None:
    settings = {"live-restore": True}
    assert not run(run_module, file, settings, apply=["reload", "restart"], _ansible_check_mode=True).get("failed")
    assert told(host) == []

    assert run(run_module, file, settings, apply=["reload", "restart"])["changed"]
    assert told(host) == ["reload docker.service", "restart docker.service"]

    assert not run(run_module, file, settings, apply=["reload", "restart"])["changed"]
    assert len(told(host)) == 2


def test_a_restart_waits_until_the_reload_is_taken_up(
    run_module: RunModule, host: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers would not outlive it, else."""
    asked: list[list[str]] = []

    def read(_: Path) -> Engine:
        asked.append(told(host))
        return Engine(info={"LiveRestoreEnabled": len(asked) > 2})

    monkeypatch.setattr(daemon_json, "read_engine", read)
    monkeypatch.setattr("time.sleep", lambda _: None)

    run(run_module, file, {"live-restore": True}, apply=["reload", "restart"])

    assert asked == [["reload docker.service"]] * 3
    assert told(host)[-1] == "restart docker.service"


def test_what_the_engine_does_not_start_with_is_taken_back(run_module: RunModule, host: Path, file: Path) -> None:
    result = run(run_module, file, {"bad": True}, apply=["restart"])

    assert result["failed"]
    assert f"Docker does not start with the new {file}: failed to start daemon: bad is not good." in result["msg"]
    assert "The old file is back, and Docker runs." in result["msg"]
    assert (file.read_text(), file.stat().st_mode & 0o777) == (FOREIGN, 0o600)
    assert list(host.glob("*~")) == []
    assert (host / "runs").exists()
    assert "reset-failed docker.service docker.socket" in told(host), "systemd counts starts"


def test_a_file_that_was_not_there_goes_again(run_module: RunModule, host: Path) -> None:
    result = run(run_module, host / "daemon.json", {"bad": True}, apply=["restart"])

    assert "The file is gone again, and Docker runs." in result["msg"]
    assert not (host / "daemon.json").exists()


def test_an_engine_that_was_broken_before_is_told_of(run_module: RunModule, host: Path, file: Path) -> None:
    (host / "broken").touch()

    message = run(run_module, file, {"live-restore": True}, apply=["restart"])["msg"]

    assert "The old file is back, and Docker does not run with it either: failed to start daemon" in message
    assert file.read_text() == FOREIGN


def test_a_setting_that_is_a_flag_as_well_names_the_place_of_the_flags(run_module: RunModule, file: Path) -> None:
    refuse = file.with_name("refuse")
    refuse.write_text(f"#!/bin/sh\necho {daemon_json.SAME}: x >&2\nexit 1")
    refuse.chmod(0o755)

    message = run(run_module, file, {"x": True}, validate=f"{refuse} %s")["msg"]

    assert message.endswith("Have one of them only: systemctl cat docker.service shows the flags.")
