"""The stand-ins for NVIDIA's packages: what makes upgrades of them look like upgrades of the real ones."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from tests.lab import nvml
from tests.lab.vendor import nvidia
from tests.lab.vendor.deb import Package

OLD, NEW, OTHER_BRANCH = nvidia.VERSIONS


@pytest.fixture(autouse=True)
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries need no compiler here: their bytes are of no interest."""
    for name in ("LIBRARY", "CUDA_LIBRARY"):
        monkeypatch.setattr(nvml, name, tmp_path / name)
        (tmp_path / name).write_bytes(name.encode())


def driver(version: str) -> dict[str, Package]:
    return {package.name: package for package in nvidia.driver(version)}


def test_the_pin_covers_the_driver_and_none_of_its_companions() -> None:
    covered = set(nvidia._PINNED.split())
    assert set(driver(OLD)) - covered == {
        "nvidia-fabricmanager",
        "nvidia-imex",
        "libnvidia-nscq",
        "libnvsdm",
    }


def test_every_dependency_is_there() -> None:
    there = set(driver(OLD))
    for package in driver(OLD).values():
        wanted = {re.split(r"[ (]", one)[0] for relation in package.depends for one in relation.split(" | ")}
        assert wanted - there <= {"dkms", "kmod", "python3"}


def test_metapackages_take_any_newer_driver_as_the_real_ones_do() -> None:
    assert f"nvidia-kernel-open-dkms (>= {OLD})" in driver(OLD)["nvidia-open"].depends
    assert driver(OLD)["nvidia-imex"].depends == ("nvidia-modprobe",)


def test_the_two_flavours_of_the_module_exclude_each_other() -> None:
    packages = driver(OLD)
    assert packages["nvidia-kernel-open-dkms"].conflicts == ("nvidia-kernel-dkms",)
    assert packages["nvidia-kernel-dkms"].conflicts == ("nvidia-kernel-open-dkms",)


def test_libraries_carry_their_version_in_their_name() -> None:
    package = driver(NEW)["libnvidia-ml1"]
    assert list(package.files) == [f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{NEW}"]
    assert package.links == {"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": f"libnvidia-ml.so.{NEW}"}


def test_no_script_has_a_gap_left_to_fill() -> None:
    for package in driver(OTHER_BRANCH).values():
        for text in package.scripts.values():
            assert not re.search(r"\{[a-z]+\}", text)
        for content in package.programs.values():
            assert b"@VERSION@" not in content


def test_the_module_is_an_object_file_whose_sections_lie_inside_it() -> None:
    content = nvidia.module(NEW, "NVIDIA")
    offset, count = struct.unpack_from("<Q", content, 40)[0], struct.unpack_from("<H", content, 60)[0]
    assert len(content) == offset + 64 * count
    for index in range(count):
        start, size = struct.unpack_from("<QQ", content, offset + 64 * index + 24)
        assert start + size <= offset
    assert f"version={NEW}\0license=NVIDIA\0".encode() in content
