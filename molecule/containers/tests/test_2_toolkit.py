"""The real container toolkit between a real engine and a pretended GPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .conftest import Machine

PACKAGES = [
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
]
LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so"
DRIVER, NEXT_DRIVER = "580.159.03", "580.178.04"


def test_all_packages_are_at_the_pinned_version_and_held(machines: list[Machine]) -> None:
    for machine in machines:
        versions = machine.host.check_output("dpkg-query --show --showformat '${Version}\\n' " + " ".join(PACKAGES))
        assert versions.split() == ["1.20.1-1"] * 4
        held = machine.host.check_output("apt-mark showhold").split()
        assert set(PACKAGES) <= set(held)
        assert "Candidate: 1.21.0-1" in machine.host.check_output("apt-cache policy nvidia-container-toolkit-base")
        upgrades = machine.host.check_output("apt-get --simulate dist-upgrade").splitlines()
        assert not [line for line in upgrades if line.startswith("Inst") and "nvidia-container" in line]


def test_what_was_in_the_settings_is_still_there(machines: list[Machine]) -> None:
    for machine in machines:
        assert machine.settings["storage-driver"] == "overlay2"
        assert machine.settings["features"]["containerd-snapshotter"] is False
        assert machine.settings["live-restore"] is True
        assert machine.settings["features"].get("cdi", False) is (machine.mode == "cdi")


def test_nvidia_ctk_itself_has_nothing_to_add(machines: list[Machine]) -> None:
    flags = {"cdi": "--cdi.enabled", "legacy": ""}
    for machine in machines:
        machine.host.check_output("cp /etc/docker/daemon.json /tmp/daemon.json")
        machine.host.check_output(
            f"nvidia-ctk --quiet runtime configure --runtime=docker --config=/tmp/daemon.json {flags[machine.mode]}"
        )
        assert json.loads(machine.host.file("/tmp/daemon.json").content_string) == machine.settings


def test_the_engine_hands_out_gpus(machines: list[Machine]) -> None:
    for machine in machines:
        info = json.loads(machine.host.check_output("docker info --format '{{ json . }}'"))
        assert info["Runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
        assert bool(info.get("CDISpecDirs")) is (machine.mode == "cdi")


def test_the_specification_is_that_of_the_driver(machines: list[Machine]) -> None:
    for machine in machines:
        assert set(machine.devices) == {"0", "all", "GPU-00000000-0000-0000-0000-000000000000"}
        assert machine.devices["0"]["deviceNodes"][0]["path"] == "/dev/nvidia0"
        assert f"hostPath: {LIBRARY}.{DRIVER}\n" in machine.host.file(machine.specification).content_string


def test_a_specification_that_nothing_refreshes_is_set_aside(machines: list[Machine]) -> None:
    for machine in machines:
        assert not machine.host.file("/etc/cdi/nvidia.yaml").exists
        assert "/dev/nvidia7" in machine.host.file("/etc/cdi/nvidia.yaml.stale").content_string


def test_a_container_gets_gpu_and_library(machines: list[Machine]) -> None:
    for machine in machines:
        machine.start("gpu")
        assert machine.has_gpu("gpu")
        assert machine.host.run(f"docker exec gpu sh -c 'exec <{LIBRARY}.{DRIVER} <{LIBRARY}.1'").rc == 0


def test_a_container_keeps_its_gpu_over_a_daemon_reload(machines: list[Machine]) -> None:
    for machine in machines:
        machine.start("gpu")
        machine.host.check_output("systemctl daemon-reload")
        assert machine.has_gpu("gpu")


def test_without_the_links_it_would_lose_it(machines: list[Machine]) -> None:
    """The test above shows something: with the runc and systemd of Debian 12, though not with those of Debian 13."""
    for machine in (machine for machine in machines if machine.name.endswith("bookworm")):
        links = machine.host.check_output("find /dev/char -lname '*nvidia*'")
        assert links
        machine.host.check_output(f"rm {links}")
        machine.start("gpu")
        assert machine.has_gpu("gpu")
        machine.host.check_output("systemctl daemon-reload")
        assert not machine.has_gpu("gpu")

        machine.host.check_output("systemctl start nvidia-cdi-refresh.service")
        machine.start("gpu")
        machine.host.check_output("systemctl daemon-reload")
        assert machine.has_gpu("gpu")


def test_the_specification_follows_the_driver(machines: list[Machine]) -> None:
    """An upgrade as DKMS does it: library, module, and then the list of modules, which a unit watches."""
    packages = f"libnvidia-ml1={NEXT_DRIVER}-1 nvidia-smi={NEXT_DRIVER}-1"
    for machine in machines:
        assert machine.host.service("nvidia-cdi-refresh.path").is_running
        machine.host.check_output(f"apt-get install --yes --quiet {packages}")
        machine.host.check_output(f"load-driver {NEXT_DRIVER}")
    wanted = f"hostPath: {LIBRARY}.{NEXT_DRIVER}\n"
    for machine in machines:
        assert machine.wait(lambda machine=machine: wanted in machine.host.file(machine.specification).content_string)


def test_the_role_mends_a_specification_that_is_out_of_date(
    machines: list[Machine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for machine in machines:
        machine.host.check_output(f"sed -i s/{NEXT_DRIVER}/{DRIVER}/ {machine.specification}")

    check = converge("--check")
    assert check.stdout.count("changed=1") == len(machines), check.stdout
    assert all(f"{LIBRARY}.{DRIVER}" in machine.host.file(machine.specification).content_string for machine in machines)

    assert converge().stdout.count("changed=1") == len(machines)
    for machine in machines:
        text = machine.host.file(machine.specification).content_string
        assert f"{LIBRARY}.{NEXT_DRIVER}" in text
        assert DRIVER not in text


def test_between_a_drivers_upgrade_and_the_reboot_the_role_waits(
    machines: list[Machine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = [machine.host.file(machine.specification).content_string for machine in machines]
    failed = "systemctl show --property=ActiveState --value nvidia-cdi-refresh.path"
    for machine in machines:
        machine.host.check_output(f"load-driver {DRIVER}")  # the library is a newer one
        assert machine.wait(lambda machine=machine: machine.host.check_output(failed) == "failed")

    result = converge()

    assert result.returncode == 0, result.stdout
    assert "no CDI specification can be made of its GPUs now" in " ".join(result.stdout.split())
    assert [machine.host.file(machine.specification).content_string for machine in machines] == before
    for machine in machines:  # the watcher watches again, and what it sees helps
        machine.host.check_output(f"rm {machine.specification}")
        machine.host.check_output(f"load-driver {NEXT_DRIVER}")
        assert machine.wait(lambda machine=machine: machine.host.file(machine.specification).exists)


def test_an_engine_without_cdi_is_refused_before_anything_is_changed(
    machines: list[Machine], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (machine,) = (machine for machine in machines if machine.mode == "legacy")

    result = converge("--limit", machine.name, "--extra-vars", "nvidia_container_toolkit_mode=cdi")

    assert result.returncode
    output = " ".join(result.stdout.split())
    assert "has Docker Engine 20.10.24+dfsg1; CDI begins with 25.0" in output
    assert "changed=0" in output
