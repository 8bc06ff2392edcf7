"""What the benchmark of load balancers makes of requests; all else in it needs hosts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.load_figures import (
    Request,
    cell,
    imbalance,
    of_hang,
    of_kill,
    of_outage,
    of_removal,
    of_streams,
    percentile,
    table,
)


def stream(start: float, end: float, server: str = "a", error: str = "", first: float | None = None) -> Any:
    return Request(True, start, start + 0.03 if first is None else first, end, server, error, [20000, 21000])


def plain(start: float, end: float, server: str = "a", error: str = "") -> Any:
    return Request(False, start, end, end, server, error)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)], ids=["median", "p99", "all", "least"]
)
def test_percentile(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_imbalance_is_a_mean_over_time() -> None:
    # Two streams on one server for one second, then one on each of two for one more; the third server has none.
    requests = [stream(0, 2, "a"), stream(0, 1, "a"), stream(1, 2, "b")]
    assert imbalance(requests, 3, 0, 2) == pytest.approx(1.5)
    assert imbalance(requests, 2, 0, 2) == pytest.approx(1.0)
    assert imbalance(requests, 3, 1.2, 1.8) == pytest.approx(1.0)


def test_streams() -> None:
    figures = of_streams([stream(0, 1), stream(1, 2)], busy=0.003)
    assert figures == pytest.approx(
        {"ttft_p50_ms": 30, "ttft_p99_ms": 30, "gap_p99_ms": 21, "cpu_s_per_1000_streams": 1.5}
    )


def test_removal_and_reloads_are_told_apart_by_when_a_request_broke() -> None:
    requests = [stream(0, 2, error="EOF"), stream(0, 4, error="EOF"), plain(3.5, 4, error="EOF"), plain(0, 9)]
    assert list(of_removal(requests, reload=3).values()) == [1, 0, 1, 1]


def test_a_killed_backend_takes_only_its_own_streams_along() -> None:
    requests = [
        stream(0, 2, "a", "EOF"),
        stream(1, 2, "b", "EOF"),
        plain(1, 2, "", "503"),
        plain(1.5, 2.2, "a"),  # it had its answer from the one that was killed
        plain(5.4, 5.5, "a"),
    ]
    assert list(of_kill(requests, "a", killed=2, back=5).values()) == [1, 1, 1, pytest.approx(0.4)]
    assert of_kill(requests[:3], "a", killed=2, back=5)["kill_back_s"] == "never"


def test_a_hung_backend_is_out_when_no_request_waits_for_it_any_more() -> None:
    requests = [stream(1, 12, "", "timeout"), stream(2.5, 9, "b", first=8), plain(4, 4.1), plain(15, 15.1)]
    told = of_hang(requests, hung=2, timeout=10)
    assert told == {"hang_requests": 0, "hang_out_s": pytest.approx(0.5), "hang_longest_s": pytest.approx(5.5)}
    told = of_hang([*requests, plain(13, 23, "", "timeout")], hung=2, timeout=10)
    assert (told["hang_requests"], told["hang_out_s"]) == (1, "never")


def test_an_outage_is_over_with_the_last_failure() -> None:
    assert of_outage([plain(2, 3, error="503"), plain(3.9, 4.5, error="503")], back=4) == {"outage_over_s": 0.5}
    assert of_outage([plain(2, 3, error="503")], back=4) == {"outage_over_s": 0}


def test_what_a_contender_cannot_do_is_no_zero() -> None:
    lines = table({"direct": {"requests_per_s": 9.6}, "some": {"removal_streams": 0, "removal_requests": 2}})
    direct, some = lines.splitlines()[2:]
    assert direct.split() == ["direct", "n/a", "n/a", "10", *["n/a"] * 11]
    assert some.split()[7] == "0/2"


def test_three_counts_in_one_cell() -> None:
    figures = {"kill_own_streams": 4, "kill_other_streams": 0, "kill_requests": 1}
    names = ("kill_own_streams", "kill_other_streams", "kill_requests")
    assert cell(figures, "{:.0f}", names) == "4+0/1"
