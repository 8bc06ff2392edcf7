"""The module release_archive, from an archive behind an address to the programs in their place."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.modules import release_archive

from tests.unit.plugins.conftest import RunModule

Install = Callable[..., dict[str, Any]]
MEMBERS = {"tool-2.linux-amd64/tool": b"the program", "tool-2.linux-amd64/NOTICE": b"", "tool-2.linux-amd64/ctl": b"c"}


def write_archive(path: Path, members: Mapping[str, bytes]) -> str:
    """Write an archive; returns its checksum."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """What there is to download: the archive, and the list of the release's checksums."""
    (tmp_path / "served").mkdir()
    checksum = write_archive(tmp_path / "served/tool-2.linux-amd64.tar.gz", MEMBERS)
    lines = [f"{'0' * 64}  tool-2.linux-arm64.tar.gz", f"{checksum}  tool-2.linux-amd64.tar.gz", ""]
    (tmp_path / "served/sha256sums.txt").write_text("\n".join(lines))
    return tmp_path / "served"


@pytest.fixture
def install(run_module: RunModule, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Run the module on a host below tmp_path."""
    monkeypatch.setattr(release_archive.platform, "machine", lambda: "x86_64")

    def run(**more: Any) -> dict[str, Any]:
        usual = {
            "release": str(tmp_path / "opt/tool/2"),
            "programs": ["tool", "ctl"],
            "url": f"{served.as_uri()}/tool-2.linux-{{architecture}}.tar.gz",
            "checksums_url": f"{served.as_uri()}/sha256sums.txt",
            "_ansible_diff": True,
        }
        return run_module(release_archive, **(usual | more))

    return run


def tree(directory: Path) -> list[str]:
    """Everything below a directory, hidden things too."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_the_programs_and_nothing_else_are_installed_for_all_to_run(install: Install, tmp_path: Path) -> None:
    would = install(_ansible_check_mode=True)
    assert not (tmp_path / "opt").exists()
    before = os.umask(0o077)

    result = install()

    os.umask(before)
    release = tmp_path / "opt/tool/2"
    programs = [str(release / "bin" / name) for name in ("tool", "ctl")]
    assert (result["changed"], result["programs"]) == (would["changed"], would["programs"]) == (True, programs)
    assert result["diff"] == would["diff"]
    assert result["diff"][0]["after"].splitlines() == programs
    assert tree(tmp_path / "opt/tool") == ["2", "2/bin", "2/bin/ctl", "2/bin/tool"]
    assert (release / "bin/tool").read_bytes() == b"the program"
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "opt", release, *release.rglob("*")]} == {0o755}


def test_what_is_there_is_left_alone_without_a_look_at_the_server(
    install: Install, served: Path, tmp_path: Path
) -> None:
    install()
    served.rename(tmp_path / "gone")

    result = install()

    assert (result["changed"], len(result["programs"])) == (False, 2)


def test_another_version_is_left_alone_and_a_killed_run_leaves_nothing_behind(install: Install, tmp_path: Path) -> None:
    for path in ("1/bin", ".2.part/bin"):
        (tmp_path / "opt/tool" / path).mkdir(parents=True)
    (tmp_path / "opt/tool/.2.part/bin/old").touch()

    assert install()["changed"]

    assert tree(tmp_path / "opt/tool") == ["1", "1/bin", "2", "2/bin", "2/bin/ctl", "2/bin/tool"]


@pytest.mark.parametrize("checksum", ["{}", "sha256:{}"])
def test_a_checksum_that_is_given_is_the_one_that_counts(install: Install, served: Path, checksum: str) -> None:
    found = hashlib.sha256((served / "tool-2.linux-amd64.tar.gz").read_bytes()).hexdigest()
    (served / "sha256sums.txt").unlink()

    assert install(checksums={"amd64": checksum.format(found.upper())})["changed"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"checksums": {"amd64": "sha256:" + "1" * 64}}, "amd64.tar.gz is not what it shall be: its SHA-256 is "),
        ({"checksums": {"arm64": "1"}, "checksums_url": "file:///no/such"}, "/no/such, which has the checksum, cannot"),
        ({"url": "file:///no/tool-2.linux-amd64.tar.gz"}, "/no/tool-2.linux-amd64.tar.gz cannot be had: "),
        ({"url": "file:///no/tool-3.linux-amd64.tar.gz"}, "sums.txt has no checksum of tool-3.linux-amd64.tar.gz."),
        ({"programs": ["tool", "more", "and"]}, "tool-2.linux-amd64.tar.gz has no and and no more."),
    ],
)
def test_what_is_refused_leaves_nothing(install: Install, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    result = install(**given)

    assert result["failed"]
    assert message in result["msg"]
    assert result["msg"].endswith("Nothing was installed.")
    assert tree(tmp_path / "opt") in ([], ["tool"])


def test_a_damaged_archive_leaves_nothing(install: Install, served: Path, tmp_path: Path) -> None:
    archive = served / "tool-2.linux-amd64.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-30])
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()

    result = install(checksums={"amd64": checksum})

    assert "tool-2.linux-amd64.tar.gz cannot be unpacked: " in result["msg"]
    assert tree(tmp_path / "opt/tool") == []


def test_a_machine_without_archives_is_told_so(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_archive.platform, "machine", lambda: "riscv64")

    assert "There are archives for x86_64 and aarch64; this is riscv64." in install()["msg"]


def test_the_labels_of_selinux_are_set_before_the_release_is_there(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/restorecon").write_text(f'#!/bin/sh\necho "$@"; ls "$3/bin" >{tmp_path}/seen\n')
    (tmp_path / "bin/restorecon").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(AnsibleModule, "selinux_enabled", lambda _: True)

    assert install()["changed"]

    assert (tmp_path / "seen").read_text() == "ctl\ntool\n"
