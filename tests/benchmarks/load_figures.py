"""What load_balancer.py makes of requests, and the table that it prints."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NEVER = "never"
Figures = dict[str, float | str | None]  # None: it has no way to do that


@dataclass(frozen=True)
class Request:
    """What became of a request; times are seconds since 1970."""

    stream: bool
    start: float
    first: float
    end: float
    server: str = ""
    error: str = ""
    gaps: Sequence[int] | None = None  # microseconds between chunks


def percentile(values: Iterable[float], share: float) -> float:
    """The least of the values that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def imbalance(requests: Iterable[Request], servers: int, since: float, until: float) -> float:
    """How many more streams the busiest server has than the idlest, as a mean over that time."""
    changes = [(moment, each.server, step) for each in requests for moment, step in ((each.start, 1), (each.end, -1))]
    open_streams: dict[str, int] = {}
    total, last = 0.0, since
    for moment, server, step in sorted(changes):
        now = min(max(moment, since), until)
        counts = list(open_streams.values()) + [0] * (servers - len(open_streams))
        total += (max(counts) - min(counts)) * (now - last)
        open_streams[server] = open_streams.get(server, 0) + step
        last = now
    return total / (until - since)


def of_streams(requests: Sequence[Request], busy: float) -> Figures:
    """Latencies in milliseconds, and processor seconds for 1,000 streams."""
    waits = [(each.first - each.start) * 1000 for each in requests]
    return {
        "ttft_p50_ms": percentile(waits, 0.5),
        "ttft_p99_ms": percentile(waits, 0.99),
        "gap_p99_ms": percentile([gap / 1000 for each in requests for gap in each.gaps or ()], 0.99),
        "cpu_s_per_1000_streams": busy / len(requests) * 1000,
    }


def of_removal(requests: Iterable[Request], reload: float) -> Figures:
    """What broke until the reloads began, and then."""
    failed = [(each.stream, each.end >= reload) for each in requests if each.error]
    return {
        "removal_streams": failed.count((True, False)),
        "removal_requests": failed.count((False, False)),
        "reload_streams": failed.count((True, True)),
        "reload_requests": failed.count((False, True)),
    }


def of_kill(requests: Sequence[Request], server: str, killed: float, back: float) -> Figures:
    """The streams that had begun on that server are lost, whoever stands before it; no other request is."""
    failed = [each for each in requests if each.error]
    again = [each.start for each in requests if each.server == server and each.start > killed and not each.error]
    return {
        "kill_own_streams": sum(each.stream and each.server == server for each in failed),
        "kill_other_streams": sum(each.stream and each.server != server for each in failed),
        "kill_requests": sum(not each.stream for each in failed),
        "kill_back_s": max(0.0, min(again) - back) if again else NEVER,
    }


def of_hang(requests: Sequence[Request], hung: float, timeout: float) -> Figures:
    """How long a server that is silent still gets requests: for ever, where it does after the first clients gave up."""
    later = [each for each in requests if each.start > hung]
    stuck = [each.start - hung for each in later if each.error or each.first - each.start > 1]
    out = max(stuck, default=0.0)
    return {
        "hang_requests": sum(bool(each.error) for each in later),
        "hang_out_s": NEVER if out > timeout - 0.5 else out,
        "hang_longest_s": max(each.first - each.start for each in later),
    }


def of_outage(requests: Sequence[Request], back: float) -> Figures:
    """How long after the return of all backends the last request fails."""
    return {"outage_over_s": max(0.0, max((each.end for each in requests if each.error), default=back) - back)}


def middle(values: Iterable[float | str | None]) -> float | None:
    """The median of figures, where there are any."""
    numbers = [value for value in values if isinstance(value, float | int)]
    return statistics.median(numbers) if numbers else None


COLUMNS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("TTFT ms", "p50/p99", "{:.1f}", ("ttft_p50_ms", "ttft_p99_ms")),
    ("gap ms", "p99", "{:.1f}", ("gap_p99_ms",)),
    ("plain", "req/s", "{:.0f}", ("requests_per_s",)),
    ("CPU us", "/request", "{:.0f}", ("cpu_us_per_request",)),
    ("CPU s", "/1000 str.", "{:.2f}", ("cpu_s_per_1000_streams",)),
    ("imba-", "lance", "{:.2f}", ("imbalance",)),
    ("removal", "str./req.", "{:.0f}", ("removal_streams", "removal_requests")),
    ("4 reloads", "str./req.", "{:.0f}", ("reload_streams", "reload_requests")),
    ("backend killed", "own+str./req.", "{:.0f}", ("kill_own_streams", "kill_other_streams", "kill_requests")),
    ("used", "again s", "{:.1f}", ("kill_back_s",)),
    ("hung", "failed", "{:.0f}", ("hang_requests",)),
    ("out", "after s", "{:.1f}", ("hang_out_s",)),
    ("longest", "wait s", "{:.1f}", ("hang_longest_s",)),
    ("outage", "over s", "{:.1f}", ("outage_over_s",)),
)


def cell(figures: Mapping[str, float | str | None], form: str, names: Sequence[str]) -> str:
    """Some figures of a contender as one text; n/a where there is none."""
    values = [figures.get(name) for name in names]
    texts = ["n/a" if value is None else value if isinstance(value, str) else form.format(value) for value in values]
    return texts[0] if set(texts) == {"n/a"} else "/".join(texts).replace("/", "+", len(texts) - 2)


def table(found: Mapping[str, Mapping[str, float | str | None]]) -> str:
    """A row by contender."""
    rows = [["", *(column[0] for column in COLUMNS)], ["", *(column[1] for column in COLUMNS)]]
    rows += [[name, *(cell(figures, form, names) for _, _, form, names in COLUMNS)] for name, figures in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)) for row in rows]
    return "\n".join(f"{row[0]:{widths[0]}}  {line}" for row, line in zip(rows, lines, strict=True))
