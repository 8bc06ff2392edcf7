"""The hosts are made once for all tests, and are gone afterwards; somebody looks at their alerts all the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import fleet
from .watch import Watch, watching


@pytest.fixture(scope="session", autouse=True)
def hosts() -> Iterator[None]:
    """Fresh ones."""
    fleet.make()
    yield
    fleet.remove()


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    """Prometheus, Alertmanager and the webhook."""
    with watching() as one:
        yield one
