"""Files and commands that may not be there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import system
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import read_text, run


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "version").write_bytes(b" 580.95.05\xff\n")
    assert read_text(tmp_path / "version") == "580.95.05\ufffd"
    assert read_text(tmp_path / "none") == ""
    assert read_text(tmp_path) == ""


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("print('well')", "well\n"),
        ("print('ill'); exit(1)", ""),
        ("import sys; sys.stdout.buffer.write(bytes([255]))", ""),
        ("import os; print(os.environ['LC_ALL'])", "C\n"),
        ("print(input())", ""),  # nobody answers
    ],
)
def test_a_command(program: str, output: str) -> None:
    assert run([sys.executable, "-X", "utf8", "-c", program]) == output


def test_a_command_that_is_not_there() -> None:
    assert run(["/nowhere/at/all"]) == ""


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "COMMAND_SECONDS", 0.1)
    assert run(["sleep", "60"]) == ""
