"""The unit tests import the collection as Ansible itself does: through its own finder, from the links in collections/."""

from __future__ import annotations

from tests.tools import docs


def pytest_configure() -> None:
    docs.find_collection()
