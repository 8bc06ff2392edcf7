"""These tests import the collection as Ansible does."""

from __future__ import annotations

from tests.tools import docs


def pytest_configure() -> None:
    """Before any test module is imported."""
    docs.find_collection()
