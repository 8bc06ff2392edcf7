"""The front doors of the scenario."""

from __future__ import annotations

from typing import Any

import pytest
from front_door import FrontDoor


@pytest.fixture(scope="module")
def front_door(host: Any) -> FrontDoor:
    return FrontDoor(host)


@pytest.fixture(scope="module")
def front_doors(hosts: list[Any]) -> list[FrontDoor]:
    return [FrontDoor(host) for host in hosts]
