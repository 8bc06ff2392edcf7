"""Packages and repositories of the lab's vendors, as dpkg and gpg read them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import vendor
from tests.lab.vendor import signing
from tests.lab.vendor.apt import Repository
from tests.lab.vendor.deb import Package
from tests.lab.vendor.signing import Key

THING = Package(
    "thing",
    "1:2.0-1",
    "What it is",
    depends=("libc6 (>= 2.36)", "a | b"),
    conflicts=("other",),
    files={"/etc/thing.conf": b"x\n", "/usr/lib/libthing.so.2.0": b"library"},
    programs={"/usr/bin/thing": b"#!/bin/sh\n"},
    links={"/usr/lib/libthing.so.2": "libthing.so.2.0"},
    scripts={"postinst": "#!/bin/sh\nexit 0\n"},
)


def members(archive: bytes) -> dict[str, bytes]:
    """The members of an ar archive, read here without the writer's help."""
    assert archive.startswith(b"!<arch>\n")
    found, at = {}, 8
    while at < len(archive):
        name, size = archive[at : at + 16].decode().strip(), int(archive[at + 48 : at + 58])
        assert archive[at + 58 : at + 60] == b"`\n"
        found[name] = archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def tar(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: member for member in archive}


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    with signing.opened(tmp_path_factory.mktemp("key"), print) as key:
        yield key


def test_a_package_has_the_members_that_dpkg_expects_in_their_order() -> None:
    found = members(THING.build())
    assert list(found) == ["debian-binary", "control.tar", "data.tar"]
    assert found["debian-binary"] == b"2.0\n"


def test_files_belong_to_root_and_have_their_modes() -> None:
    data = tar(members(THING.build())["data.tar"])
    assert {name: oct(member.mode) for name, member in data.items() if member.isfile()} == {
        "./etc/thing.conf": "0o644",
        "./usr/bin/thing": "0o755",
        "./usr/lib/libthing.so.2.0": "0o644",
    }
    assert {(member.uid, member.gid, member.mtime) for member in data.values()} == {(0, 0, 0)}
    assert data["./usr/lib/libthing.so.2"].linkname == "libthing.so.2.0"


def test_every_directory_comes_before_what_lies_in_it() -> None:
    names = list(tar(members(THING.build())["data.tar"]))
    assert names[:5] == [".", "./etc", "./usr", "./usr/bin", "./usr/lib"]


def test_control_says_what_apt_must_know() -> None:
    control = tar(members(THING.build())["control.tar"])
    assert set(control) == {".", "./control", "./md5sums", "./conffiles", "./postinst"}
    assert "Depends: libc6 (>= 2.36), a | b\n" in THING.control
    assert "Conflicts: other\n" in THING.control
    assert "Provides" not in THING.control


def test_the_same_package_has_the_same_bytes() -> None:
    assert THING.build() == THING.build()


def test_a_flat_repository_lists_its_packages_with_their_hashes(tmp_path: Path, key: Key) -> None:
    Repository("vendor/x86_64", "Vendor", (THING,), label="Vendor CUDA").write(tmp_path, key)
    base = tmp_path / "vendor/x86_64"
    content = (base / "thing_2.0-1_amd64.deb").read_bytes()
    index = (base / "Packages").read_text()
    assert "Filename: ./thing_2.0-1_amd64.deb\n" in index
    assert f"Size: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n" in index
    release = (base / "Release").read_text()
    assert "Label: Vendor CUDA\n" in release
    assert f" {hashlib.sha256(index.encode()).hexdigest()} {len(index)} Packages\n" in release


def test_suites_lie_beside_each_other(tmp_path: Path, key: Key) -> None:
    suites = [Repository("debian", "Vendor", (THING,), suite=suite, component="stable") for suite in ("one", "two")]
    for suite in suites:
        suite.write(tmp_path, key)
    for name in ("one", "two"):
        index = (tmp_path / f"debian/dists/{name}/stable/binary-amd64/Packages").read_text()
        (line,) = [line for line in index.splitlines() if line.startswith("Filename: ")]
        assert (tmp_path / "debian" / line.removeprefix("Filename: ")).is_file()


def test_release_files_are_signed_by_the_key(tmp_path: Path, key: Key) -> None:
    Repository("flat", "Vendor", (THING,)).write(tmp_path, key)
    keyring = tmp_path / "keyring.gpg"
    keyring.write_bytes(key.public)
    for files in (["InRelease"], ["Release.gpg", "Release"]):
        options = ["--no-default-keyring", f"--keyring={keyring}", "--trust-model=always", "--verify"]
        run = subprocess.run(
            ["gpg", "--batch", *options, *(str(tmp_path / "flat" / name) for name in files)],
            env=os.environ | {"GNUPGHOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert "Good signature" in run.stderr


def test_only_what_has_changed_is_written_anew(tmp_path: Path, key: Key) -> None:
    said: list[str] = []
    mirror, stamps = tmp_path / "mirror", tmp_path / "stamps"
    (mirror / "simple").mkdir(parents=True)
    one, two = (Repository(path, "Vendor", (THING,)) for path in ("a/one", "a/two"))
    vendor.publish([one, two], mirror, stamps, key, said.append)
    vendor.publish([one, two], mirror, stamps, key, said.append)
    assert said == ["a/one: 1 packages", "a/two: 1 packages"]
    vendor.publish([one, Repository("a/two", "Vendor", ())], mirror, stamps, key, said.append)
    assert said[2:] == ["a/two: 0 packages"]
    assert not (mirror / "a/two/thing_2.0-1_amd64.deb").exists()
    assert (mirror / "a/one/thing_2.0-1_amd64.deb").exists()
    assert (mirror / "simple").is_dir()
