"""Which row of a role's table a host has."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.filter.platforms import FilterModule

TABLE = {
    "Debian 12": {"user": "www-data", "paths": {"module": "/usr/lib/a", "log": "/var/log"}},
    "Ubuntu 24.04": {"like": "Debian 12", "paths": {"module": "/usr/lib/b"}},
    "Rocky 9": {"like": "Ubuntu 24.04", "user": "nginx"},
}


@pytest.mark.parametrize(
    ("distribution", "version", "row"),
    [
        ("Debian", "12.13", TABLE["Debian 12"]),
        ("Ubuntu", "24.04", {"user": "www-data", "paths": {"module": "/usr/lib/b", "log": "/var/log"}}),
        ("Rocky", "9.6", {"user": "nginx", "paths": {"module": "/usr/lib/b", "log": "/var/log"}}),
        ("Ubuntu", "24.10", {}),
        ("Fedora", "42", {}),
    ],
)
def test_a_host_has_the_row_of_its_distribution_and_release(
    distribution: str, version: str, row: dict[str, Any]
) -> None:
    platform_row = FilterModule().filters()["platform_row"]

    assert platform_row(TABLE, {"distribution": distribution, "distribution_version": version}) == row


def test_texts_stand_in_the_place_of_their_names() -> None:
    table = {"Ubuntu 24.04": {"codename": "noble", "url": "{mirror}/{codename}/{other}", "list": ["{codename}"]}}
    facts = {"distribution": "Ubuntu", "distribution_version": "24.04"}
    platform_row = FilterModule().filters()["platform_row"]

    filled = platform_row(table, facts, {"mirror": "https://mirror"})

    assert filled == {"codename": "noble", "url": "https://mirror/noble/{other}", "list": ["noble"]}
    assert platform_row(table, facts) == table["Ubuntu 24.04"]
