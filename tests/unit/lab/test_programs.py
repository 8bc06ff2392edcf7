"""The archives of programs that the lab builds: what a role expects of a release."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.modules.release_archive import listed

from tests.lab import programs
from tests.lab.settings import ROOT

NAMES = [program.repository.rpartition("/")[2] for program in programs.PROGRAMS]


def by_name(name: str) -> programs.Program:
    return programs.PROGRAMS[NAMES.index(name)]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> programs.Program:
    """A release of Prometheus, published."""
    monkeypatch.setattr(programs, "MIRROR", tmp_path / "mirror")
    (tmp_path / "built").mkdir()
    for name in ("prometheus", "promtool"):
        (tmp_path / "built" / name).write_text(f"program {name}")
    program = by_name("prometheus")
    programs._publish(program, tmp_path / "built", lambda _text: None)
    return program


@pytest.mark.usefixtures("built")
def test_a_release_has_the_layout_that_a_role_looks_for() -> None:
    directory = programs.MIRROR / "github.com/prometheus/prometheus/releases/download/v3.13.2"
    archive = directory / "prometheus-3.13.2.linux-amd64.tar.gz"
    with tarfile.open(archive) as members:
        assert {member.name: member.mode for member in members} == {
            "prometheus-3.13.2.linux-amd64/prometheus": 0o755,
            "prometheus-3.13.2.linux-amd64/promtool": 0o755,
        }
    checksum = listed((directory / "sha256sums.txt").as_uri(), archive.name, 10)
    assert checksum == programs.sha256(archive)


def test_what_is_there_is_not_built_again_until_something_else_would_be(built: programs.Program) -> None:
    assert programs._is_there(built)
    assert not programs._is_there(dataclasses.replace(built, tags="other"))
    assert not programs._is_there(by_name("jaeger"))


def test_a_new_machine_has_no_mirror_before_the_first_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    built = "for word; do case $word in -o=*) built=${word#-o=} ;; esac; done"
    go.write_text(f'#!/bin/sh\n{built}\ncd "$built" && touch prometheus promtool\n')
    go.chmod(0o755)
    monkeypatch.setattr(programs, "MIRROR", tmp_path / "cache" / "mirror")
    monkeypatch.setattr(programs.golang, "command", lambda _tools, _say: [go])
    monkeypatch.setattr(programs.golang, "environment", dict)
    programs._build(by_name("prometheus"), lambda _text: None)
    assert programs._is_there(by_name("prometheus"))


@pytest.mark.parametrize("name", NAMES)
def test_go_mod_names_the_version_and_the_programs_of_the_table(name: str) -> None:
    program = by_name(name)
    lines = (program.tools / "go.mod").read_text().split("\n")
    assert f"\t{program.path} {program.module} // indirect" in lines
    for command in program.commands:
        assert any(line.endswith(f"{program.path}/cmd/{command}") for line in lines)


def test_prometheus_is_the_version_that_the_role_installs_by_default() -> None:
    defaults = yaml.safe_load((ROOT / "roles/prometheus/defaults/main.yml").read_text())
    assert by_name("prometheus").version == defaults["prometheus_version"]
