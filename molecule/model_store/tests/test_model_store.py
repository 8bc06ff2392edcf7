"""Models come to three hosts: once from the hub, whole, and with a clear word when something goes wrong on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORE = "/srv/model-store"
PLACE = f"{STORE}/acme--tiny--main"
WEIGHTS = "model.safetensors"
SIZE = 24 << 20
UNIT = "gpuhosts-models"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MAY_COME_TWICE = 3 << 20  # what was on its way when somebody was killed, and in no file yet


class Hub:
    """The host with the hub."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def fails(self, **faults: Any) -> None:
        """Let something go wrong from now on."""
        self.host.check_output("echo %s > /srv/hub/faults.json", json.dumps(faults))

    def sent(self) -> int:
        """Bytes of weights that it has given to anybody."""
        lines = self.host.file("/srv/hub/log").content_string.splitlines()
        return sum(int(line.split()[2]) for line in lines if f"/{WEIGHTS} " in line)


@pytest.fixture(scope="session")
def hub(hosts: list[Any]) -> Hub:
    return Hub(hosts[-1])


@pytest.fixture(scope="session")
def gpu_hosts(hosts: list[Any]) -> list[Any]:
    return hosts[:-1]


@pytest.fixture(autouse=True)
def sound(hub: Hub) -> Iterator[None]:
    """What goes wrong in a test is over at its end."""
    yield
    hub.fails()


def entries(host: Any) -> list[str]:
    """What is in the store of a host."""
    return host.check_output("ls -A %s", STORE).split()


def is_tidy(host: Any) -> bool:
    """Nothing runs, nothing is open, and no secret is left."""
    rules = host.run("ufw status").stdout
    runs = host.run("systemctl is-active %s", UNIT).stdout.strip() == "active"
    return not (runs or "29400" in rules or host.file(f"/run/{UNIT}").exists or f"{STORE}/.opened" in entries(host))


def test_everybody_has_it_and_the_hub_gave_it_once(hub: Hub, gpu_hosts: list[Any]) -> None:
    expected = hub.host.file(f"/srv/hub/acme/tiny/{WEIGHTS}").sha256sum
    for host in gpu_hosts:
        assert host.file(f"{PLACE}/{WEIGHTS}").sha256sum == expected
        assert sorted(host.check_output("ls -A %s", PLACE).split()) == [".complete", "config.json", WEIGHTS]
        assert is_tidy(host)
    assert hub.sent() == SIZE


def test_engines_may_read_it_and_only_root_may_write(gpu_hosts: list[Any]) -> None:
    for host in gpu_hosts:
        host.check_output("runuser --user nobody -- test -r %s/%s", PLACE, WEIGHTS)
        assert host.check_output("stat --format '%%U %%a' %s %s/%s", PLACE, PLACE, WEIGHTS) == "root 755\nroot 644"


@pytest.mark.parametrize(
    ("wrong", "variables", "said"),
    [
        ({}, {"revision": "v9"}, "has acme/tiny, but no revision 'v9'. Correct it in vllm_models."),
        (
            {"asks_for": "hf_right"},
            {"revision": "v1", "model_store_hf_token": "hf_wrong"},
            "the token in vllm_hf_token may not read it.",
        ),
        ({"rotten": [WEIGHTS]}, {"revision": "v1"}, "comes with another checksum than"),
        ({}, {"revision": "v1", "model_store_dir": "/mnt/small"}, "free below /mnt/small, and acme--tiny--v1 takes"),
    ],
    ids=["revision", "token", "rotten", "full"],
)
def test_what_cannot_be_had_is_said_and_what_was_there_stays(
    hub: Hub, gpu_hosts: list[Any], change: Callable[..., str], wrong: Any, variables: Any, said: str
) -> None:
    before = [host.check_output("ls -AR --full-time %s", PLACE) for host in gpu_hosts]
    gpu_hosts[1].check_output(
        "mkdir -p /mnt/small && mountpoint -q /mnt/small || mount -t tmpfs -o size=9m tmpfs /mnt/small"
    )
    hub.fails(**wrong)
    output = change(**variables)
    assert said in " ".join(output.split())
    assert "hf_wrong" not in output
    assert [host.check_output("ls -AR --full-time %s", PLACE) for host in gpu_hosts] == before
    assert [host.file(f"{STORE}/acme--tiny--v1").exists for host in gpu_hosts] == [False] * 3
    assert all(is_tidy(host) for host in gpu_hosts)


def test_a_disk_that_fills_up_on_the_way_ends_it(gpu_hosts: list[Any], change: Callable[..., str]) -> None:
    """Somebody else wrote there meanwhile: the look found room for it."""
    output = change(revision="v1", model_store_dir="/mnt/small", model_store_margin_gib=-1)
    assert "/mnt/small: No space left on device" in output
    assert [host.file("/mnt/small/acme--tiny--v1").exists for host in gpu_hosts][1] is False
    gpu_hosts[1].check_output("umount /mnt/small")


def test_a_run_that_is_interrupted_goes_on_where_it_ended(
    hub: Hub, gpu_hosts: list[Any], change: Callable[..., str]
) -> None:
    """Ansible is killed, then every host; what has come is not fetched again, and nothing stays open."""
    before = hub.sent()
    hub.fails(rate=2 << 20)
    with interrupted("revision=v1"):
        wait_for_part(gpu_hosts[0])
    for host in gpu_hosts:
        host.check_output("systemctl kill --signal=KILL %s", UNIT)
    assert not any(host.file(f"{STORE}/acme--tiny--v1").exists for host in gpu_hosts)
    hub.fails()
    assert change(revision="v1") == ""
    assert [host.file(f"{STORE}/acme--tiny--v1/{WEIGHTS}").size for host in gpu_hosts] == [SIZE] * 3
    assert SIZE <= hub.sent() - before <= SIZE + MAY_COME_TWICE
    assert all(is_tidy(host) for host in gpu_hosts)


def test_a_source_that_is_lost_is_named_and_the_next_run_goes_on(
    hub: Hub, gpu_hosts: list[Any], change: Callable[..., str]
) -> None:
    hub.fails(rate=2 << 20)
    before = hub.sent()
    lost = threading.Thread(target=lose, args=(gpu_hosts[0],))
    lost.start()
    output = change(revision=COMMIT, model_store_patience=2)
    lost.join()
    assert "was ended. It said:" in output or "gpuhosts-models.service was ended" in output
    assert "is not to be had from http://model_store-one:29400" in output
    assert not any(host.file(f"{STORE}/acme--tiny--{COMMIT}").exists for host in gpu_hosts)
    hub.fails()
    assert change(revision=COMMIT) == ""
    assert hub.sent() - before <= SIZE + MAY_COME_TWICE
    assert all(is_tidy(host) for host in gpu_hosts)


def test_a_host_that_lost_it_has_it_from_another_one(
    hub: Hub, gpu_hosts: list[Any], change: Callable[..., str]
) -> None:
    before = hub.sent()
    gpu_hosts[2].check_output("rm -r %s", PLACE)
    gpu_hosts[1].check_output("truncate --size=-1 %s/%s", PLACE, WEIGHTS)
    assert change(model_store_verify=True) == ""
    for host in gpu_hosts:
        assert host.file(f"{PLACE}/{WEIGHTS}").size == SIZE
        assert is_tidy(host)
    assert hub.sent() == before


def test_old_revisions_go_on_request_and_not_what_an_engine_runs_from(
    gpu_hosts: list[Any], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    gpu_hosts[0].check_output("mkdir -p /etc/vllm/instances")
    gpu_hosts[0].check_output("echo 'model: %s/acme--tiny--v1' > /etc/vllm/instances/tiny-1.yaml", STORE)
    listed = "".join(converge().stdout.split())
    assert f"areofnomoreuse:acme--tiny--{COMMIT}.model_store_collect:trueremovesthem." in listed
    converge("--extra-vars", "model_store_collect=true")
    assert [sorted(entries(host)) for host in gpu_hosts] == [
        ["acme--tiny--main", "acme--tiny--v1"],
        ["acme--tiny--main"],
        ["acme--tiny--main"],
    ]


@contextlib.contextmanager
def interrupted(variables: str) -> Iterator[None]:
    """Run the scenario, and kill Ansible in the middle of it."""
    converge = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "converge.yml")
    command = [
        "ansible-playbook",
        "--inventory",
        os.environ["MOLECULE_INVENTORY_FILE"],
        "--extra-vars",
        variables,
        converge,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for_part(host: Any) -> None:
    """Until a third of the weights has come to a host."""
    deadline = time.monotonic() + 180  # how soon it begins is not the subject
    while int(host.run("cat %s/.acme*/*.part | wc -c", STORE).stdout) < SIZE // 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lose(host: Any) -> None:
    """End what a host serves with, in the middle of it."""
    wait_for_part(host)
    host.check_output("systemctl kill --signal=KILL %s", UNIT)
