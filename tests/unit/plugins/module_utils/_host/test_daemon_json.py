"""Merging into Docker's daemon.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.daemon_json import merge, parse, render
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures/daemon_json"
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
KEYS = st.sampled_from(["log-driver", "log-opts", "features", "runtimes", "data-root"])
SETTINGS = st.dictionaries(
    KEYS, SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=1), SCALARS, max_size=3)
)


@pytest.mark.parametrize("text", ["", " \n", "{}", "null", "null\n", "\ufeff", "\ufeff{}"])
def test_a_file_can_be_without_settings(text: str) -> None:
    assert parse(text, "daemon.json") == {}


def test_a_byte_order_mark_is_passed_over() -> None:
    """Editors on Windows write one, and dockerd skips it."""
    text = '\ufeff{\n  "registry-mirrors": ["https://mirror.example.org"]\n}\n'
    assert parse(text, "daemon.json") == {"registry-mirrors": ["https://mirror.example.org"]}


# Files that were met on hosts: None for one that dockerd refuses, too.
MET = {
    "bom.json": {"registry-mirrors": ["https://mirror.example.org"]},
    "null.json": {},
    "comments.json": None,
    "dup.json": {"log-driver": "syslog", "log-opts": {"max-size": "10m"}},
    "hosts.json": {"hosts": ["tcp://0.0.0.0:2375", "fd://"], "live-restore": False},
    "legacy.json": {"default-runtime": "nvidia", "log-driver": "local", "node-generic-resources": ["gpu=GPU-1"]},
}


@pytest.mark.parametrize("name", MET)
def test_a_file_that_was_met(name: str) -> None:
    text, expected = (FIXTURES / name).read_text(), MET[name]
    if expected is None:
        with pytest.raises(ConfigFileError, match=r"^daemon.json, line 2, column 3: not JSON"):
            parse(text, "daemon.json")
        return
    found = parse(text, "daemon.json")
    assert {key: found[key] for key in expected} == expected
    assert merge(found, {"live-restore": True}) == {**found, "live-restore": True}


def test_every_file_that_was_met_is_looked_at() -> None:
    assert {path.name for path in FIXTURES.iterdir()} == set(MET)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{\n  "debug": true\n  "data-root": "/srv"\n}', "/etc/docker/daemon.json, line 3, column 3: not JSON"),
        ('{"debug": tru}', "/etc/docker/daemon.json, line 1, column 11: not JSON"),
        ("[]", "/etc/docker/daemon.json, line 1: not a JSON object but a list"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigFileError) as caught:
        parse(text, "/etc/docker/daemon.json")
    assert complaint in str(caught.value)
    assert "Nothing was changed" in str(caught.value)


@pytest.mark.parametrize(
    ("current", "settings", "merged"),
    [
        ({}, {"live-restore": True}, {"live-restore": True}),
        ({"data-root": "/srv"}, {"live-restore": True}, {"data-root": "/srv", "live-restore": True}),
        (  # the toolkit and somebody else, each with a runtime and a feature
            {"runtimes": {"runsc": {"path": "runsc"}}, "features": {"containerd-snapshotter": True}},
            {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}, "features": {"cdi": True}},
            {
                "runtimes": {"runsc": {"path": "runsc"}, "nvidia": {"args": [], "path": "nvidia-container-runtime"}},
                "features": {"containerd-snapshotter": True, "cdi": True},
            },
        ),
        ({"dns": ["192.0.2.1"]}, {"dns": ["192.0.2.2"]}, {"dns": ["192.0.2.2"]}),
        (  # the same log driver, which the file need not name
            {"log-opts": {"tag": "x", "max-size": "1g"}},
            {"log-driver": "json-file", "log-opts": {"max-size": "100m"}},
            {"log-opts": {"tag": "x", "max-size": "100m"}, "log-driver": "json-file"},
        ),
        (  # another one, to which the old options mean nothing
            {"log-driver": "syslog", "log-opts": {"syslog-address": "udp://192.0.2.1"}},
            {"log-driver": "json-file", "log-opts": {"max-size": "100m"}},
            {"log-driver": "json-file", "log-opts": {"max-size": "100m"}},
        ),
    ],
)
def test_settings_are_merged(current: dict[str, Any], settings: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(current, settings) == merged


@given(SETTINGS, SETTINGS)
def test_what_is_not_mentioned_stays_and_a_second_time_changes_nothing(
    current: dict[str, Any], settings: dict[str, Any]
) -> None:
    before = json.dumps(current)
    merged = merge(current, settings)
    assert json.dumps(current) == before
    assert merge(merged, settings) == merged
    for key in current.keys() - settings.keys() - {"log-opts"}:
        assert merged[key] == current[key]
    assert merge(current, {}) == current


@given(SETTINGS)
def test_what_is_written_is_what_is_read(settings: dict[str, Any]) -> None:
    assert parse(render(settings), "daemon.json") == settings
