"""The unit tests import the collection as Ansible does: by its own finder, through the links in collections/."""

from __future__ import annotations

from hypothesis import settings

from tests.tools import docs

# The same examples in every run, however slow the machine: a red run can be repeated.
settings.register_profile("repeatable", derandomize=True, deadline=None)


def pytest_configure() -> None:
    settings.load_profile("repeatable")
    docs.find_collection()
