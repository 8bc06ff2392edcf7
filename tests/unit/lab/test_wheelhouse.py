"""The package mirror: repacked wheels, locks and index pages."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from tests.lab import wheelhouse
from tests.lab.wheelhouse import Pin


def upstream(directory: Path, compression: int = zipfile.ZIP_DEFLATED, *, backwards: bool = False) -> Path:
    """A wheel as another project's tools might have made it."""
    files = {
        "thing/__init__.py": b"x = 1\n",
        "thing/N=1,K=2.json": b"{}\n",
        "thing_cpu-1.0.dist-info/METADATA": b"Metadata-Version: 2.4\nName: thing-cpu\nVersion: 1.0\n\nName: prose\n",
        "thing_cpu-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
        "thing_cpu-1.0.dist-info/RECORD": b"",
    }
    directory.mkdir()
    path = directory / "thing_cpu-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as wheel:
        for name in sorted(files, reverse=backwards):
            wheel.writestr(name, files[name])
    return path


def test_repacking_gives_the_same_bytes_however_the_wheel_was_made(tmp_path: Path) -> None:
    one, other = tmp_path / "1", tmp_path / "2"
    packed = wheelhouse.repack(upstream(one), one, "thing", "1.0+cpu")
    again = wheelhouse.repack(upstream(other, zipfile.ZIP_STORED, backwards=True), other, "thing", "1.0+cpu")
    assert packed.name == "thing-1.0+cpu-py3-none-any.whl"
    assert packed.read_bytes() == again.read_bytes()


def test_a_repacked_wheel_has_its_new_name_everywhere(tmp_path: Path) -> None:
    packed = wheelhouse.repack(upstream(tmp_path / "in"), tmp_path, "thing", "1.0+cpu")
    with zipfile.ZipFile(packed) as wheel:
        metadata = wheel.read("thing-1.0+cpu.dist-info/METADATA").decode()
        assert metadata == "Metadata-Version: 2.4\nName: thing\nVersion: 1.0+cpu\n\nName: prose\n"
        record = {
            row[0]: row[1:] for row in csv.reader(io.StringIO(wheel.read("thing-1.0+cpu.dist-info/RECORD").decode()))
        }
        assert set(record) == set(wheel.namelist())
        for name in set(record) - {"thing-1.0+cpu.dist-info/RECORD"}:
            digest = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest()).decode().rstrip("=")
            assert record[name] == [f"sha256={digest}", str(len(wheel.read(name)))]


def test_the_index_links_every_wheel_with_its_hash(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    digests = {
        wheels / "Some_Thing-1.0+cpu-py3-none-any.whl": "1" * 64,
        wheels / "some_thing-2.0-py3-none-any.whl": "2" * 64,
        wheels / "other-1.0-py3-none-any.whl": "3" * 64,
    }
    wheelhouse.write_index(tmp_path / "simple", digests)
    assert sorted(path.name for path in (tmp_path / "simple").iterdir()) == ["index.html", "other", "some-thing"]
    assert '<a href="some-thing/">' in (tmp_path / "simple/index.html").read_text()
    page = (tmp_path / "simple/some-thing/index.html").read_text()
    assert f'"../../wheels/Some_Thing-1.0%2Bcpu-py3-none-any.whl#sha256={"1" * 64}"' in page
    assert f'"../../wheels/some_thing-2.0-py3-none-any.whl#sha256={"2" * 64}"' in page


def test_an_index_forgets_projects_that_are_gone(tmp_path: Path) -> None:
    wheelhouse.write_index(tmp_path / "simple", {tmp_path / "wheels/old-1-py3-none-any.whl": "1" * 64})
    wheelhouse.write_index(tmp_path / "simple", {tmp_path / "wheels/new-1-py3-none-any.whl": "2" * 64})
    assert sorted(path.name for path in (tmp_path / "simple").iterdir()) == ["index.html", "new"]


def test_a_pin_survives_being_written_and_read() -> None:
    pins = [
        Pin("six", "1.17.0", "python_version > '3.11'", ("a" * 64, "b" * 64)),
        Pin("vllm", "0.32.0+cpu", "", ("c" * 64,)),
    ]
    assert wheelhouse.parse("# a comment\n" + "\n".join(pin.line for pin in pins) + "\n") == pins


@pytest.mark.parametrize(
    ("marker", "pythons"),
    [
        ("", ["3.11", "3.13"]),
        ("python_version > '3.11'", ["3.13"]),
        ("python_full_version < '3.13'", ["3.11"]),
        ("sys_platform == 'win32'", []),
        ("platform_machine == 'x86_64'", ["3.11", "3.13"]),
    ],
)
def test_a_marker_is_judged_for_the_host_and_not_for_this_machine(marker: str, pythons: list[str]) -> None:
    pin = Pin("thing", "1", marker, ())
    assert [python for python in wheelhouse.PYTHONS if pin.applies_to(python)] == pythons
    assert (pin.simplified().marker == "") == (pythons == list(wheelhouse.PYTHONS))


def test_every_host_gets_the_same_uv_with_hashes() -> None:
    (pin,) = wheelhouse.parse(wheelhouse.INSTALLER.read_text())
    assert (pin.name, pin.marker) == ("uv", "")
    assert pin.hashes


def test_the_committed_lock_is_read_wholly_and_every_host_installs_hashed_wheels_only() -> None:
    text = wheelhouse.LOCK.read_text()
    pins = wheelhouse.parse(text)
    assert len(pins) == sum(1 for line in text.splitlines() if line[0].isalnum())
    assert all(pin.hashes for pin in pins)
    for python in wheelhouse.PYTHONS:
        names = [pin.name for pin in pins if pin.applies_to(python)]
        assert len(names) == len(set(names))
        assert {"vllm", "torch"} < set(names)
