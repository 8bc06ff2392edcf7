"""Debian's own drivers as the role has installed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

# Branch of the driver, flavour that auto chooses, and the module's name in DKMS.
EXPECTED = {"bookworm": ("535.", "Dual MIT/GPL", "nvidia-current-open"), "trixie": ("550.", "NVIDIA", "nvidia-current")}


@pytest.fixture
def expected(host: Any) -> tuple[str, str, str]:
    return EXPECTED[host.check_output("hostname")]


def held(host: Any) -> set[str]:
    return set(host.check_output("apt-mark showhold").splitlines())


def versions(host: Any) -> dict[str, str]:
    form = "${Package} ${Version}\\n"
    names = " ".join(sorted(held(host)))
    return dict(
        line.split(" ") for line in host.check_output(f"dpkg-query --show --showformat='{form}' {names}").splitlines()
    )


def test_dkms_has_built_the_module_for_debians_kernel(host: Any, expected: tuple[str, str, str]) -> None:
    branch, license_name, name = expected
    (path,) = host.check_output(f"ls /lib/modules/*/updates/dkms/{name}.ko*").splitlines()

    assert host.check_output(f"modinfo -F version {path}").startswith(branch)
    assert host.check_output(f"modinfo -F license {path}") == license_name


def test_the_library_is_there_and_says_that_no_driver_is_loaded(host: Any) -> None:
    code = host.check_output("python3 -c 'import ctypes; print(ctypes.CDLL(\"libnvidia-ml.so.1\").nvmlInit_v2())'")

    assert code == "9"
    assert "couldn't communicate with the NVIDIA driver" in host.run("nvidia-smi").stdout


def test_an_upgrade_of_the_host_leaves_the_driver_alone(host: Any) -> None:
    before = versions(host)
    assert {"libcuda1", "libnvidia-ml1", "nvidia-smi"} < set(before)

    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get --yes upgrade")

    assert versions(host) == before


def test_everything_of_the_drivers_version_is_held(host: Any) -> None:
    assert {"libcuda1", "libnvidia-ml1", "nvidia-smi", "firmware-nvidia-gsp", "nvidia-alternative"} < held(host)


def test_only_debian_13_has_no_open_module(hosts: list[Any], converge: Callable[..., Any]) -> None:
    before = [versions(host) for host in hosts]

    result = converge("--check", "--extra-vars", json.dumps({"nvidia_driver_kernel_modules": "open"}))

    output = " ".join(result.stdout.split())
    assert "on nvidia_driver_distro-trixie only proprietary is possible" in output
    assert "550.163.01 does not build on its own kernel 6.12" in output
    assert "on nvidia_driver_distro-bookworm only" not in output
    assert [versions(host) for host in hosts] == before


def test_a_driver_too_old_for_vllm_is_warned_of_and_the_missing_boot_is_said(converge: Callable[..., Any]) -> None:
    output = " ".join(converge("--check").stdout.split())

    assert "WARNING: Debian 12 has driver branch 535." in output
    assert "WARNING: Debian 13 has driver branch 550." in output
    assert "runs and has no NVIDIA module; there is one for" in output
