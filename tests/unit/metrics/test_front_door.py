"""Requests in the front door's log count once, whatever becomes of the log and of who reads it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from metrics_front_door import FrontDoorLog, first_byte_seconds
from metrics_text import Metrics, samples


def entry(model: str = "tiny", status: int = 200, **more: Any) -> dict[str, Any]:
    """As the role nginx_lb has NGINX write it."""
    return {
        "model": model,
        "status": status,
        "seconds": 0.7,
        "server_first_byte_seconds": "0.2",
        "server_seconds": "0.7",
        **more,
    }


def line(*arguments: Any, **more: Any) -> str:
    return json.dumps(entry(*arguments, **more)) + "\n"


def write(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def told(log: FrontDoorLog) -> dict[tuple[str, str], float]:
    """Requests by model and status."""
    metrics = Metrics()
    log.run(metrics)
    found = samples(metrics.text(), "gpuhosts_front_door_requests_total")
    return {(labels["model"], labels["status"]): value for labels, value in found}


@pytest.fixture
def follow() -> Iterator[Callable[..., FrontDoorLog]]:
    """A log that is left at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(contextlib.closing(FrontDoorLog(*arguments)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    write(path, line("before", 200))
    return path


def test_what_was_there_before_the_first_run_is_not_counted_and_what_comes_is(
    path: Path, follow: Callable[..., FrontDoorLog]
) -> None:
    log = follow(path)
    write(path, line() + line(status=499) + line("other", 502) + line())
    assert told(log) == {("tiny", "200"): 2, ("tiny", "499"): 1, ("other", "502"): 1}
    assert told(log) == {("tiny", "200"): 2, ("tiny", "499"): 1, ("other", "502"): 1}


def test_a_line_counts_when_it_is_whole(path: Path, follow: Callable[..., FrontDoorLog]) -> None:
    log = follow(path)
    whole = line()
    write(path, whole + whole[:20])
    assert told(log) == {("tiny", "200"): 1}
    write(path, whole[20:])
    assert told(log) == {("tiny", "200"): 2}


def test_a_log_that_is_renamed_is_read_to_its_end_before_the_new_one(
    path: Path, follow: Callable[..., FrontDoorLog]
) -> None:
    log = follow(path)
    write(path, line())
    old = path.rename(path.with_suffix(".log.1"))
    write(old, line())  # NGINX goes on writing there until it is told
    assert told(log) == {("tiny", "200"): 2}
    write(path, line())
    write(old, line())
    assert told(log) == {("tiny", "200"): 3}
    assert told(log) == {("tiny", "200"): 4}


def test_a_log_that_is_emptied_in_place_is_read_from_its_beginning(
    path: Path, follow: Callable[..., FrontDoorLog]
) -> None:
    log = follow(path)
    write(path, line() * 3)
    assert told(log) == {("tiny", "200"): 3}
    path.write_text(line(), encoding="utf-8")
    assert told(log) == {("tiny", "200"): 4}


@pytest.mark.parametrize("renamed", [False, True])
def test_after_a_restart_nothing_counts_twice_and_nothing_is_lost(
    path: Path, renamed: bool, follow: Callable[..., FrontDoorLog]
) -> None:
    first = follow(path)
    write(path, line() * 2)
    told(first)
    stored = json.loads(json.dumps(first.stored()))
    write(path, line())  # while nobody reads
    if renamed:
        path.rename(path.with_name("access.log.1"))
        write(path, line())
    second = follow(path, stored)
    told(second)
    assert told(second) == {("tiny", "200"): 4 if renamed else 3}


def test_a_log_that_is_not_there_yet_is_read_from_its_beginning_once_it_is(
    tmp_path: Path, follow: Callable[..., FrontDoorLog]
) -> None:
    log = follow(tmp_path / "access.log")
    assert told(log) == {}
    write(tmp_path / "access.log", line())
    assert told(log) == {("tiny", "200"): 1}


def test_lines_that_are_no_request_are_told_and_harm_nobody(path: Path, follow: Callable[..., FrontDoorLog]) -> None:
    log = follow(path)
    write(path, 'nonsense\n[1]\n{"model": "x"}\n' + line(status="abc") + "y" * (3 << 20) + "\n" + line())
    metrics = Metrics()
    log.run(metrics)
    ((_, unreadable),) = samples(metrics.text(), "gpuhosts_front_door_unreadable_lines_total")
    assert unreadable == 5
    assert told(log) == {("tiny", "200"): 1}


def test_histograms_add_up(path: Path, follow: Callable[..., FrontDoorLog]) -> None:
    log = follow(path)
    write(path, line(seconds=0.1) + line(seconds=31.5) + line(seconds=9999, server_first_byte_seconds="-"))
    metrics = Metrics()
    log.run(metrics)
    text = metrics.text()
    whole = {labels["le"]: value for labels, value in samples(text, "gpuhosts_front_door_seconds_bucket")}
    assert (whole["0.1"], whole["30"], whole["60"], whole["3600"], whole["+Inf"]) == (1, 1, 2, 2, 3)
    assert [value for _, value in samples(text, "gpuhosts_front_door_seconds_sum")] == [0.1 + 31.5 + 9999]
    assert [value for _, value in samples(text, "gpuhosts_front_door_first_byte_seconds_count")] == [2]


@pytest.mark.parametrize(
    ("firsts", "wholes", "expected"),
    [
        ("0.2", "0.7", 0.2),
        ("-, 0.2", "5.0, 0.7", 5.2),  # the first server did not answer for 5 s
        ("-, 0.2", "-, 0.7", 0.2),
        ("- : 0.2", "0.0 : 0.7", 0.2),  # all servers of affinity were busy
        ("-, - : -, 0.2", "1.0, 0.0 : 2.0, 0.7", 3.2),
        ("-", "0.0", None),
        ("", "", None),
    ],
)
def test_the_first_byte_comes_after_the_tries_that_failed(firsts: str, wholes: str, expected: float | None) -> None:
    assert first_byte_seconds(entry(server_first_byte_seconds=firsts, server_seconds=wholes)) == expected


def test_the_fields_are_those_that_the_front_door_writes() -> None:
    template = Path(__file__).parents[3] / "roles/nginx_lb/templates/nginx.conf.j2"
    text = template.read_text(encoding="utf-8")
    for name in entry():
        assert f'"{name}":' in text
