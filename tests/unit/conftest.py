"""The unit tests import the collection as Ansible does: by its own finder, through the links in collections/."""

from __future__ import annotations

from tests.tools import docs


def pytest_configure() -> None:
    docs.find_collection()
