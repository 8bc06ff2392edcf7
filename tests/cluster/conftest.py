"""The hosts are made once for all tests, and are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import site


@pytest.fixture(scope="session", autouse=True)
def hosts() -> Iterator[None]:
    """Fresh ones."""
    site.make()
    yield
    site.remove()
