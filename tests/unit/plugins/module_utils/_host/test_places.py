"""Files and directories as they shall be."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import closed_to, may_write, unmounted

USER = "nobody" if os.geteuid() == 0 else getpass.getuser()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Unlike tmp_path, one that everybody can come to."""
    path = Path(tempfile.mkdtemp())
    yield path
    path.chmod(0o700)
    shutil.rmtree(path)


@pytest.mark.parametrize(("mode", "may"), [(0o777, True), (0o755, USER != "nobody"), (0o555, False), (0o666, False)])
def test_whether_a_user_may_write(directory: Path, mode: int, may: bool) -> None:
    before = (os.geteuid(), os.getegid(), os.getgroups())
    directory.chmod(mode)
    assert may_write(USER, directory) == may
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_what_a_user_may_not_pass_through_on_the_way(directory: Path) -> None:
    directory.chmod(0o755)
    for name in ("data", "data/hf"):
        (directory / name).mkdir()
        (directory / name).chmod(0o777)
    assert closed_to(USER, directory / "data/hf/hub") is None
    (directory / "data").chmod(0o600)  # whoever may open its last directory comes to none of them
    assert not may_write(USER, directory / "data/hf")
    assert closed_to(USER, directory / "data/hf/hub") == directory / "data"
    subprocess.run(["chmod", "a+x", directory / "data"], check=True)
    assert closed_to(USER, directory / "data/hf/hub") is None
    assert may_write(USER, directory / "data/hf")


def test_nothing_is_said_of_a_user_that_is_not_there_yet(directory: Path) -> None:
    assert may_write("no-such-user", directory)


def test_what_is_to_be_mounted_on_the_way_and_is_not(tmp_path: Path) -> None:
    table = tmp_path / "fstab"
    assert unmounted(tmp_path / "data/hf", table) is None
    table.write_text(
        "# /dev/x /srv ext4\n\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\nproc /proc proc defaults 0 0\n"
        f"UUID=3 {tmp_path}/data/hf xfs nofail 0 2\nUUID=4 {tmp_path}/data xfs nofail 0 2\n"
    )
    assert unmounted(tmp_path / "data/hf/hub", table) == tmp_path / "data"
    assert unmounted(tmp_path / "data", table) == tmp_path / "data"
    assert unmounted(tmp_path / "database", table) is None
    assert unmounted(Path("/proc/self"), table) is None
    assert unmounted(Path("/srv/hf"), table) is None


def test_a_directory_that_is_mounted_at_a_place_of_its_own_disk_is_a_mount(tmp_path: Path) -> None:
    """Such as a bind mount, whose device is that of the directory above it."""
    table, mounts = tmp_path / "fstab", tmp_path / "mountinfo"
    (tmp_path / "the models").mkdir()
    table.write_text(f"/data {tmp_path}/the\\040models none bind 0 0\n")
    mounts.write_text("24 1 254:0 / / rw - ext4 /dev/vda rw\n")
    assert unmounted(tmp_path / "the models/hub", table, mounts) == tmp_path / "the models"
    with mounts.open("a") as more:
        more.write(f"700 24 254:0 /data {tmp_path}/the\\040models rw,relatime - ext4 /dev/vda rw\n")
    assert unmounted(tmp_path / "the models/hub", table, mounts) is None
