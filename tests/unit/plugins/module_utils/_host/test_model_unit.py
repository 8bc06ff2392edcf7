"""The unit that fetches models: what it is started with, what it tells, and what is left when it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ModelStoreError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import model_fetch, model_unit
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import Access
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import Step
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import Answer

ACCESS = {"name": "gpuhosts-models", "listens_on": ["10.0.0.1:29400"], "allow_from": ["10.0.0.2"], "firewall": "auto"}


class Host:
    """Its commands, its firewall, and whether the unit runs."""

    def __init__(self, root: Path) -> None:
        self.store, self.run = root / "store", root / "run"
        self.runs = True
        self.refuses = ""
        self.commands: list[list[str]] = []
        self.opened: list[list[str]] = []

    def answer(self, command: Sequence[str], *_: Any) -> Answer:
        self.commands.append(list(command))
        if command[0] == "journalctl":
            return Answer(0, "Killed\n")
        if command[0] == "systemd-run" and self.refuses:
            return Answer(1, "", self.refuses)
        return Answer(0 if self.runs or command[1] != "is-active" else 3)

    def look(self, _: Path, __: Any, access: dict[str, Any], ___: Any) -> Access:
        self.opened.append(access["listens_on"])
        return Access(firewall=(Step(says=("opened",)),))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(model_unit, "RUN", made.run)
    monkeypatch.setattr(model_unit, "STATUS", made.run / "status.json")
    monkeypatch.setattr(model_unit, "answer", made.answer)
    monkeypatch.setattr(model_unit, "look", made.look)
    return made


def begin(host: Host) -> None:
    model_unit.begin({"directory": str(host.store), "models": []}, seconds=60, access=ACCESS)


def test_it_is_started_with_its_own_text_and_a_job_that_only_root_may_read(host: Host) -> None:
    begin(host)
    assert (host.run / "model_fetch.py").read_text() == Path(model_fetch.__file__).read_text()
    job = host.run / "job.json"
    assert json.loads(job.read_text()) == {
        "directory": str(host.store),
        "models": [],
        "status": f"{host.run}/status.json",
    }
    assert (job.stat().st_mode & 0o777, host.run.stat().st_mode & 0o777) == (0o600, 0o700)
    command = host.commands[-1]
    assert command[0] == "systemd-run"
    assert command[-3:] == ["-I", f"{host.run}/model_fetch.py", f"{host.run}/job.json"]
    assert {"--property=RuntimeMaxSec=60", f"--property=ReadWritePaths={host.store} {host.run}"} <= set(command)


def test_a_start_that_systemd_refuses_is_told(host: Host) -> None:
    host.refuses = "Failed to start transient service unit\n"
    with pytest.raises(ModelStoreError, match=r"does not start gpuhosts-models\.service: Failed to start transient"):
        begin(host)


def test_how_far_it_is(host: Host) -> None:
    begin(host)
    assert model_unit.progress()["state"] == "running"  # it has not said anything yet
    said = {"state": "failed", "problem": "the disk", "rate": 0, "models": []}
    (host.run / "status.json").write_text(json.dumps(said))
    host.runs = False
    assert model_unit.progress() == said
    (host.run / "status.json").write_text(json.dumps({**said, "state": "running"}))
    assert model_unit.progress()["problem"] == "gpuhosts-models.service was ended. It said: Killed"


def test_what_was_opened_is_closed_whoever_ends_it(host: Host) -> None:
    begin(host)
    assert model_unit.is_left(host.store)
    (host.run / "status.json").unlink(missing_ok=True)
    model_unit.end(host.store)
    assert host.opened == [["10.0.0.1:29400"], []]
    assert not model_unit.is_left(host.store)
    model_unit.end(host.store)
    assert len(host.opened) == 2
