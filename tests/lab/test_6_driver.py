"""A driver upgrade under streams: one host comes through, the other one loses a GPU, and no client notices."""

from __future__ import annotations

import time

from .clients import client, drained
from .conftest import Run, machine, playbook
from .test_5_release import release
from .vendor.nvidia import VERSIONS

OLDER, NEWER = VERSIONS[:2]

UNIT = "vllm@tiny-llama-{}.service"
NOTICE = "/etc/ansible/facts.d/gpuhosts_maintenance.fact"
# At every boot one more line says that the second GPU is gone, as a card does that does not survive the reset.
LOSE_GPU = "/etc/tmpfiles.d/lose-gpu.conf"
GPUS = "/etc/fake-nvml.conf"


def loaded(host: str) -> str:
    return str(machine(host).file("/sys/module/nvidia/version").content_string.strip())


def upgrade(*arguments: str) -> Run:
    return playbook("playbooks/driver_upgrade.yml", *release(), "-e", f"nvidia_driver_version={NEWER}", *arguments)


def test_the_version_must_be_stated() -> None:
    run = playbook("playbooks/driver_upgrade.yml", "-e", "nvidia_driver_version=580")
    assert run.code != 0
    assert "nvidia_driver_version is '580', so it is not known which version to install" in run.text
    assert run.changed == {}


def test_a_model_keeps_a_server() -> None:
    run = upgrade("-e", "driver_upgrade_batch=2")
    assert run.code != 0
    assert "While gpu1, gpu2 are together out of service, nobody would answer for tiny-llama. Lower" in run.text
    assert run.changed == {}


def test_check_mode_tells_and_touches_nothing() -> None:
    run = upgrade("--check")
    assert run.code == 0
    assert run.text.count(f"driver {OLDER} -> {NEWER}, 2 GPUs, tiny-llama-") == 2
    assert run.changed == {}


def test_a_host_that_loses_a_gpu_stops_the_roll_out_and_no_request_fails() -> None:
    gpu2 = machine("gpu2")
    gpu2.check_output(f"printf '%s' 'w+ {GPUS} - - - - \\n[gpu 1]\\nlost = yes\\n' > {LOSE_GPU}")

    with client() as streams:
        run = upgrade()
        before = streams.answers
        time.sleep(8)

    assert run.code != 0
    assert "gpu2: Driver upgrade | The driver is the new one, and the GPUs are what they were: GPU 1: lost" in run.text
    assert "the roll-out stops here; the other hosts go on serving" in run.text
    print(f"{streams.answers} answers, {len(streams.failures)} failures")
    assert streams.failures == []
    assert streams.answers > before > 0, "gpu1 goes on serving after the roll-out has stopped"
    assert (loaded("gpu1"), loaded("gpu2")) == (NEWER, NEWER)
    assert drained() == {"172.29.250.22"}
    assert machine("gpu1").service(UNIT.format(1)).is_running
    assert not gpu2.service(UNIT.format(2)).is_running
    assert gpu2.file(NOTICE).exists


def test_a_mended_host_is_taken_up_where_it_was_left() -> None:
    gpu2 = machine("gpu2")
    gpu2.check_output(f"rm {LOSE_GPU}")
    gpu2.check_output(f"sed --in-place '/^lost = yes$/d' {GPUS}")

    with client() as streams:
        run = upgrade()

    assert run.code == 0
    print(f"{streams.answers} answers, {len(streams.failures)} failures")
    assert streams.failures == []
    assert "gpu1" not in run.changed, "it was done"
    assert drained() == set()
    for host, ordinal in (("gpu1", 1), ("gpu2", 2)):
        assert machine(host).service(UNIT.format(ordinal)).is_running
        assert machine(host).service(UNIT.format(ordinal)).is_enabled
        assert not machine(host).file(NOTICE).exists
    specification = gpu2.file("/var/run/cdi/nvidia.yaml").content_string
    assert f"libnvidia-ml.so.{NEWER}" in specification
    assert OLDER not in specification
    assert playbook("playbooks/verify.yml", *release()).code == 0
