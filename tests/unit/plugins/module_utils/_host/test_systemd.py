"""Units are judged by every systemd that the roles meet, the one of Ubuntu 22.04 included."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.systemd import refusal

# Each complains of a unit with the word Nonsense, and of another unit besides.
SINCE_250 = """#!/bin/sh
for word; do file=$word; done
case "$*" in *--recursive-errors=no*) code=1;; *) code=0;; esac
line=$(grep -n Nonsense "$file") && echo "$file:${line%%:*}: Unknown key 'Nonsense' in section [Service]." >&2
! grep -q Nonsense "$file" || exit $code
"""
OF_249 = """#!/bin/sh
for word; do file=$word; done
case "$*" in
*--recursive-errors*) echo "systemd-analyze: unrecognized option '--recursive-errors=no'" >&2; exit 1;;
*:*) echo "Failed to prepare filename $file: Invalid argument" >&2; exit 1;;
esac
echo "vllm-router.service: Command /opt/router is not executable: No such file or directory" >&2
echo "/lib/systemd/system/plymouth-start.service:16: Unit configured to use KillMode=none." >&2
line=$(grep -n Nonsense "$file") && echo "$file:${line%%:*}: Unknown key name 'Nonsense' in section 'Service'." >&2
grep -q /missing "$file" && echo "vllm@i.service: Command /missing is not executable: No such file or directory" >&2
exit 0
"""


def run(command: list[str], *, environ_update: dict[str, str]) -> tuple[int, str, str]:
    around = {**os.environ, **environ_update}
    done = subprocess.run(command, env=around, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=[SINCE_250, OF_249], ids=["252", "249"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "systemd-analyze").write_text(request.param)
    (tmp_path / "systemd-analyze").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "scratch").mkdir()
    return tmp_path


def test_a_sound_unit_is_accepted(systemd: Path) -> None:
    unit = systemd / ".vllm@.service.new"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert refusal(run, "vllm@.service", unit, systemd / "scratch") == ""


def test_one_that_it_does_not_understand_is_refused_with_its_words(systemd: Path) -> None:
    unit = systemd / ".vllm@.service.new"
    unit.write_text("[Service]\nExecStart=/bin/true\nNonsense=1\n")
    said = refusal(run, "vllm@.service", unit, systemd / "scratch")
    assert said.startswith("vllm@.service:3: Unknown key")
    assert "plymouth" not in said


def test_what_249_says_of_the_unit_without_its_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systemd-analyze").write_text(OF_249)
    (tmp_path / "systemd-analyze").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    unit = tmp_path / "new"
    unit.write_text("[Service]\nExecStart=/missing\n")
    (tmp_path / "scratch").mkdir()
    assert "/missing is not executable" in refusal(run, "vllm@.service", unit, tmp_path / "scratch")
