"""The engine itself, as the lab has deployed it: what the stand-in for it has to be like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.stand_in.contract import CHECKS, Client

from .hosts import HOSTS
from .settings import STATE


@pytest.fixture(scope="module")
def client() -> Client:
    (address,) = (host.address for host in HOSTS if host.name == "gpu1")
    return Client(address, 8000, (STATE / "api_key").read_text().strip(), "tiny-llama")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_real_engine_keeps_the_contract_of_the_stand_in(client: Client, check: Callable[[Client], None]) -> None:
    check(client)
