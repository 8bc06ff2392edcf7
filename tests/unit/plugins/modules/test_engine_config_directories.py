"""The module engine_config, for the directories that engines write to and wait for."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import refusals

from . import test_engine_config as host
from .test_engine_config import TINY, Configure, start

configure = host.configure


def writing_to(path: Path) -> dict[str, Any]:
    return TINY | {"env": {"HF_HOME": str(path)}}


def drop_in_of(host: Path, name: str) -> Path:
    return host / f"vllm@{name}.service.d/places.conf"


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are below /tmp, where no engine writes."""
    monkeypatch.setattr(refusals, "unusable", lambda _: "")


@pytest.mark.usefixtures("usable")
def test_a_directory_of_the_environment_is_made_and_opened_for_the_instance_alone(
    configure: Configure, tmp_path: Path
) -> None:
    other = TINY | {"id": "tiny-2"}
    configure(TINY, other)
    start(tmp_path, "tiny-1")
    start(tmp_path, "tiny-2")
    cache = tmp_path / "data/hf"
    paths = [cache, drop_in_of(tmp_path, "tiny-1"), tmp_path / "instances/tiny-1.env"]

    checked = configure(writing_to(cache), other, _ansible_check_mode=True)
    assert (set(checked["files"]), cache.exists()) == (set(map(str, paths)), False)
    result = configure(writing_to(cache), other)

    assert (set(result["files"]), result["restart"]) == (set(checked["files"]), ["tiny-1"])
    assert cache.stat().st_mode & 0o777 == 0o750
    assert f"ReadWritePaths=-{cache}\n" in drop_in_of(tmp_path, "tiny-1").read_text()
    assert "ReadWritePaths=" not in drop_in_of(tmp_path, "tiny-2").read_text()
    cache.chmod(0o775)  # is for its owner to say
    assert not configure(writing_to(cache), other)["changed"]


@pytest.mark.usefixtures("usable")
def test_one_below_the_home_is_the_engines_anyway(configure: Configure, tmp_path: Path) -> None:
    configure(writing_to(tmp_path / "home/vllm/hf"))
    assert not (tmp_path / "home/vllm/hf").exists()
    assert "ReadWritePaths=" not in drop_in_of(tmp_path, "tiny-1").read_text()


@pytest.mark.usefixtures("usable")
def test_one_that_the_engine_may_not_write_to_is_refused(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "may_write", lambda *_: False)
    (tmp_path / "data").mkdir()

    result = configure(writing_to(tmp_path / "data"))

    assert result["msg"] == (
        f"tiny-1: HF_HOME is {tmp_path}/data, where the user root may not write. "
        f"Give it to the engines with `chown root:root {tmp_path}/data`, or name another directory."
    )
    assert not (tmp_path / "instances").exists()


@pytest.mark.usefixtures("usable")
def test_one_that_the_engine_cannot_come_to_is_refused(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To own it would not help."""
    monkeypatch.setattr(refusals, "closed_to", lambda *_: tmp_path / "data")

    result = configure(writing_to(tmp_path / "data/hf"))

    assert result["msg"] == (
        f"tiny-1: HF_HOME is {tmp_path}/data/hf, and the user root may not pass through {tmp_path}/data. "
        f"Let it with `chmod a+x {tmp_path}/data`, or name another directory."
    )
    assert not (tmp_path / "instances").exists()


@pytest.mark.usefixtures("usable")
def test_one_that_only_the_engines_come_to_is_left_to_them(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an NFS server that takes root for nobody."""
    squashed, is_dir = tmp_path / "nfs/closed", Path.is_dir

    def as_nobody(path: Path) -> bool:
        if squashed in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", as_nobody)
    monkeypatch.setattr(refusals, "closed_to", lambda *_: None)
    monkeypatch.setattr(refusals, "may_write", lambda *_: True)
    squashed.mkdir(parents=True)

    result = configure(writing_to(squashed / "hf/hub"))

    assert result["changed"]
    assert f"ReadWritePaths=-{squashed}/hf/hub\n" in drop_in_of(tmp_path, "tiny-1").read_text()
    assert not any(str(squashed) in path for path in result["files"])


@pytest.mark.usefixtures("usable")
def test_one_on_a_disk_that_is_not_mounted_is_not_made_beside_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "unmounted", lambda _: tmp_path / "data")

    result = configure(writing_to(tmp_path / "data/hf"))

    assert result["msg"] == (
        f"tiny-1: HF_HOME is {tmp_path}/data/hf, and nothing is mounted at {tmp_path}/data, as /etc/fstab wants it. "
        f"Mount it there with `mount {tmp_path}/data`, or take it out of /etc/fstab."
    )
    assert not (tmp_path / "data").exists()


def test_one_that_no_engine_can_write_to_is_refused(configure: Configure, tmp_path: Path) -> None:
    result = configure(TINY, environment={"TMPDIR": "/home/ops"})
    assert result["msg"].startswith("tiny-1: TMPDIR is /home/ops, and an engine sees home directories read-only. Name")
    assert not (tmp_path / "instances").exists()


def test_an_instance_waits_for_release_home_and_model(configure: Configure, tmp_path: Path) -> None:
    configure(
        TINY | {"engine_args": {"model": "/srv/models/tiny"}}, TINY | {"id": "hub", "engine_args": {"model": "a/b"}}
    )
    places = f" wait {tmp_path}/current {tmp_path}/home/vllm"
    assert f"{places} /srv/models/tiny\n" in drop_in_of(tmp_path, "tiny-1").read_text()
    assert f"{places}\n" in drop_in_of(tmp_path, "hub").read_text()


def test_what_systemd_reads_beside_the_unit_goes_with_the_instance(configure: Configure, tmp_path: Path) -> None:
    configure(TINY, TINY | {"id": "tiny-2"})
    (tmp_path / "vllm@tiny-2.service.d/mine.conf").touch()

    configure()

    assert not drop_in_of(tmp_path, "tiny-1").parent.exists()
    assert [path.name for path in drop_in_of(tmp_path, "tiny-2").parent.iterdir()] == ["mine.conf"]
