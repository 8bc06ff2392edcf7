"""The engine itself, as the lab has deployed it: in its sandbox, and what the stand-in for it has to be like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.stand_in.contract import CHECKS, Client

from .conftest import machine
from .hosts import HOSTS
from .settings import STATE

UNITS = {"gpu1": "vllm@tiny-llama-1.service", "gpu2": "vllm@tiny-llama-2.service"}


@pytest.fixture(scope="module")
def key() -> str:
    return (STATE / "api_key").read_text().strip()


@pytest.fixture(scope="module")
def client(key: str) -> Client:
    (address,) = (host.address for host in HOSTS if host.name == "gpu1")
    return Client(address, 8000, key, "tiny-llama")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_real_engine_keeps_the_contract_of_the_stand_in(client: Client, check: Callable[[Client], None]) -> None:
    check(client)


@pytest.mark.parametrize("name", UNITS)
def test_only_root_and_the_engine_know_the_key(name: str, key: str) -> None:
    host = machine(name)
    pid = host.check_output("systemctl show --value --property=MainPID %s", UNITS[name])
    assert key in host.file(f"/proc/{pid}/environ").content_string
    assert key not in host.check_output("ps -e -o args")
    assert key not in host.check_output("journalctl --no-pager --unit %s", UNITS[name])


@pytest.mark.parametrize("name", UNITS)
def test_what_the_engine_writes_lies_in_its_state_directory(name: str) -> None:
    host = machine(name)
    elsewhere = "-not -path '/var/lib/vllm*' -not -path '/var/tmp/systemd-private*' -not -path '/tmp/systemd-private*'"
    assert host.check_output("find /var/lib/vllm -user vllm -type f")
    assert host.check_output(f"find / -xdev -user vllm {elsewhere}") == ""
    assert not host.file("/root/.cache").exists
    assert not host.file("/root/.config").exists
