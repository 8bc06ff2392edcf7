"""Debian's own drivers as the role has installed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

BRANCHES = {"bookworm": "535.", "trixie": "550."}


def held(host: Any) -> set[str]:
    return set(host.check_output("apt-mark showhold").splitlines())


def versions(host: Any) -> dict[str, str]:
    form = "${Package} ${Version}\\n"
    names = " ".join(sorted(held(host)))
    return dict(
        line.split(" ") for line in host.check_output(f"dpkg-query --show --showformat='{form}' {names}").splitlines()
    )


def test_dkms_has_built_the_module_for_debians_kernel(host: Any) -> None:
    (path,) = host.check_output("ls /lib/modules/*/updates/dkms/nvidia-current.ko*").splitlines()

    assert host.check_output(f"modinfo -F version {path}").startswith(BRANCHES[host.check_output("hostname")])
    assert host.check_output(f"modinfo -F license {path}") == "NVIDIA"


def test_the_library_is_there_and_says_that_no_driver_is_loaded(host: Any) -> None:
    code = host.check_output("python3 -c 'import ctypes; print(ctypes.CDLL(\"libnvidia-ml.so.1\").nvmlInit_v2())'")

    assert code == "9"
    assert "couldn't communicate with the NVIDIA driver" in host.run("nvidia-smi").stdout


def test_an_upgrade_of_the_host_leaves_the_driver_alone(host: Any) -> None:
    before = versions(host)
    assert {"libcuda1", "libnvidia-ml1", "nvidia-smi"} < set(before)

    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get --yes upgrade")

    assert versions(host) == before


def test_an_upgrade_to_a_newer_driver_in_the_archive_leaves_it_alone(hosts: list[Any]) -> None:
    (host,) = (host for host in hosts if host.check_output("hostname") == "trixie")
    before = versions(host)
    source, preference = "/etc/apt/sources.list.d/backports.list", "/etc/apt/preferences.d/backports"
    suite = "deb http://deb.debian.org/debian trixie-backports contrib non-free non-free-firmware"
    pin = "Package: *\\nPin: release n=trixie-backports\\nPin-Priority: 500\\n"
    try:
        host.check_output(f"echo '{suite}' > {source}; printf '{pin}' > {preference}; apt-get update")
        candidate = host.check_output("LC_ALL=C apt-cache policy libcuda1 | grep Candidate:").split()[1]
        assert candidate not in (before["libcuda1"], "(none)"), "nothing newer is there to stay away from"

        output = host.check_output("LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get --yes upgrade")

        assert "have been kept back" in output
        assert versions(host) == before
    finally:
        host.check_output(f"rm --force {source} {preference}; apt-get update")


def test_everything_of_the_drivers_version_is_held(host: Any) -> None:
    assert {"libcuda1", "libnvidia-ml1", "nvidia-smi", "firmware-nvidia-gsp", "nvidia-alternative"} < held(host)


def test_an_open_module_that_does_not_build_is_refused_before_it_breaks_dpkg(
    hosts: list[Any], converge: Callable[..., Any]
) -> None:
    before = [versions(host) for host in hosts]

    result = converge("--check", "--extra-vars", json.dumps({"nvidia_driver_kernel_modules": "open"}))

    output = " ".join(result.stdout.split())
    for name, reason in (
        ("bookworm", "535.261.03, which does not build on its kernel 6.1.192"),
        ("trixie", "550.163.01 does not build on its own kernel 6.12"),
    ):
        assert f"on nvidia_driver_distro-{name} only proprietary is possible" in output
        assert reason in output
    assert [versions(host) for host in hosts] == before


def test_a_driver_too_old_for_vllm_is_warned_of_and_the_missing_boot_is_said(converge: Callable[..., Any]) -> None:
    output = " ".join(converge("--check").stdout.split())

    assert "WARNING: Debian 12 has driver branch 535." in output
    assert "WARNING: Debian 13 has driver branch 550." in output
    assert "runs and has no NVIDIA module; there is one for" in output
