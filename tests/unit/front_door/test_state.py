"""What is known of servers: who may say what, and that nothing opens what somebody has drained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from front_door_state import FrontDoor, State, imported, main, render, servers, set_drained

TEXT = """
upstream small {
    least_conn;
    server 10.0.0.1:8000 max_fails=3 fail_timeout=1s; # small-1
    server 10.0.0.2:8000 max_fails=3 fail_timeout=1s; # small-2
}
upstream big {
    server 10.0.0.2:8000; # big-1
    keepalive 64;
}
server {
    listen 80;
}
"""
ONE, TWO = "10.0.0.1:8000", "10.0.0.2:8000"
BY_OPERATOR, BY_MAINTENANCE = ({"drained": {"by": by, "since": 1}} for by in ("operator", "maintenance"))
DOWN = {"down": {"why": "refuses connections", "since": 1}}


@pytest.fixture
def door(tmp_path: Path) -> FrontDoor:
    door = FrontDoor(tmp_path)
    door.source.parent.mkdir(parents=True)
    door.source.write_text(TEXT)
    door.configuration.write_text(TEXT)
    return door


def no_problem(_: Path) -> str:
    return ""


def test_the_servers_of_each_model() -> None:
    assert servers(TEXT) == {ONE: {"small"}, TWO: {"small", "big"}}


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({}, "1:8000 max_fails=3 fail_timeout=1s; # small-1\n"),
        (BY_OPERATOR, "1:8000 max_fails=3 fail_timeout=1s down; # small-1\n"),
        (BY_MAINTENANCE, "1:8000 max_fails=3 fail_timeout=1s down; # small-1 (maintenance)\n"),
        (DOWN, "1:8000 max_fails=3 fail_timeout=1s down; # small-1 (health)\n"),
        ({**DOWN, **BY_MAINTENANCE}, "1:8000 max_fails=3 fail_timeout=1s down; # small-1 (maintenance)\n"),
    ],
)
def test_a_mark_is_written_and_read_again_and_goes(entry: dict[str, object], line: str) -> None:
    marked = render(TEXT, {ONE: entry})
    assert line in marked
    assert set(imported(marked, 1).get(ONE, {})) == set(entry) - ({"down"} if "drained" in entry else set())
    assert render(marked, {}) == TEXT


@pytest.mark.parametrize(
    ("before", "wanted", "by", "after"),
    [
        ({}, "drained", "operator", "operator"),
        (BY_MAINTENANCE, "drained", "operator", "operator"),
        (BY_OPERATOR, "drained", "maintenance", "operator"),
        (BY_OPERATOR, "serving", "maintenance", "operator"),
        (BY_MAINTENANCE, "serving", "maintenance", ""),
        (BY_MAINTENANCE, "serving", "operator", ""),
        (BY_OPERATOR, "serving", "operator", ""),
        (DOWN, "drained", "maintenance", "maintenance"),
        ({**DOWN, **BY_MAINTENANCE}, "serving", "maintenance", ""),
    ],
)
def test_who_has_the_last_word(before: dict[str, object], wanted: str, by: str, after: str) -> None:
    state: State = {ONE: dict(before)}
    told = set_drained(state, ONE, wanted, by, 2)
    assert state[ONE].get("drained", {}).get("by", "") == after
    assert bool(told) == (state[ONE] != before)
    assert not set_drained(state, ONE, wanted, by, 3), "a second time is no change"
    if wanted == "serving" and not after:
        assert "down" not in state[ONE], "who opens it has seen it answer"


def test_a_limit_of_connections_is_kept_with_the_mark() -> None:
    text = TEXT.replace("1:8000 max_fails=3", "1:8000 max_conns=64 max_fails=3")
    marked = render(text, {ONE: DOWN})
    assert "1:8000 max_conns=64 max_fails=3 fail_timeout=1s down; # small-1 (health)\n" in marked
    assert render(marked, {}) == text


def test_the_role_never_opens_what_somebody_has_drained(door: FrontDoor) -> None:
    with door.changing() as state:
        state[ONE] = dict(BY_OPERATOR)
    assert door.render(no_problem)
    door.source.write_text(TEXT.replace("least_conn;", "random;"))
    assert door.render(no_problem)
    text = door.configuration.read_text()
    assert "random;" in text
    assert " down; # small-1\n" in text
    assert not door.render(no_problem)


@pytest.mark.parametrize("damage", [None, "{", '{"servers": []}', "[]"])
def test_a_state_that_is_missing_or_damaged_is_what_nginx_goes_by(door: FrontDoor, damage: str | None) -> None:
    door.source.unlink()  # as on a host of a release before
    door.configuration.write_text(render(TEXT, {ONE: BY_MAINTENANCE}))
    if damage is not None:
        door.state.parent.mkdir(parents=True)
        door.state.write_text(damage)
    door.render(no_problem)
    door.source.write_text(TEXT)
    door.render(no_problem)
    assert " down; # small-1 (maintenance)\n" in door.configuration.read_text()
    assert json.loads(door.state.read_text())["servers"][ONE]["drained"]["by"] == "maintenance"


def test_what_nginx_refuses_changes_nothing(door: FrontDoor) -> None:
    door.source.write_text(TEXT.replace("least_conn;", "nonsense;"))
    with pytest.raises(ValueError, match=r"unknown directive in .*front-door.conf:1"):
        door.render(lambda new: f"unknown directive in {new}:1")
    assert door.configuration.read_text() == TEXT
    assert [path.name for path in door.source.parent.iterdir() if path.suffix == ".new"] == []


def test_a_server_that_is_no_more_is_forgotten(door: FrontDoor) -> None:
    with door.changing() as state:
        state |= {ONE: dict(BY_OPERATOR), "10.9.9.9:1": dict(BY_OPERATOR), TWO: {}}
    assert list(door.read()) == [ONE]


def test_a_check_only_tells(door: FrontDoor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drained", "--by", "maintenance", "--check", ONE, "192.0.2.1:1"], door) == 0
    assert capsys.readouterr().out == f"{ONE}: drained (maintenance)\n"
    assert door.read() == {}
    assert door.configuration.read_text() == TEXT
