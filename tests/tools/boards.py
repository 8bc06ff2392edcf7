"""What Grafana's dashboards are described with, as data; dashboards.py makes Grafana's JSON of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

RANGE = "[$__rate_interval]"
NONE = "No data"
QUIET = "No traffic"


@dataclasses.dataclass(frozen=True)
class Query:
    """A query in PromQL and the name of its lines."""

    expression: str
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel; orange and red from `steps` on, or below `below`, where less is worse."""

    kind: str  # stat, lines, areas or table
    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    steps: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    most: float | None = None
    empty: str = NONE
    columns: tuple[tuple[str, str], ...] = ()  # of a table: title and unit of each query's value
    width: int = 8  # of 24

    @property
    def height(self) -> int:
        """In rows of Grafana's grid."""
        return 4 if self.kind == "stat" else 8


@dataclasses.dataclass(frozen=True)
class Variable:
    """What can be chosen above a dashboard: values of a label, or fixed ones."""

    name: str
    label: str
    query: str = ""
    values: tuple[str, ...] = ()
    many: bool = True


@dataclasses.dataclass(frozen=True)
class Board:
    """A dashboard: its name in addresses, variables and rows of panels."""

    name: str
    title: str
    variables: tuple[Variable, ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def query(expression: str, legend: str = "") -> Query:
    """A query, with its legend."""
    return Query(expression, legend)


def total(metric: str, by: str = "", where: str = "") -> str:
    """Per second, summed."""
    return f"sum{_by(by)}(rate({metric}{_where(where)}{RANGE}))"


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """Of a histogram; nothing, rather than NaN, where there was no traffic."""
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{_where(where)}{RANGE}))) > 0"


def share(part: str, whole: str, by: str = "") -> str:
    """A part of a whole, 0 where the part has no series, nothing where the whole is 0."""
    return f"({part} or {whole} * 0) / ({whole} > 0)" if by else f"({part} or vector(0)) / ({whole} > 0)"


def quantiles(metric: str, where: str, by: str = "", prefix: str = "") -> tuple[Query, ...]:
    """The median and the two tails that are looked at."""
    return tuple(
        query(quantile(value, metric, by, where), f"{prefix}p{round(value * 100)}") for value in (0.5, 0.95, 0.99)
    )


def stat(
    title: str,
    about: str,
    expression: str,
    unit: str = "short",
    *,
    steps: tuple[float, ...] = (),
    below: tuple[float, ...] = (),
    empty: str = NONE,
) -> Panel:
    """One number."""
    return Panel("stat", title, about, (query(expression),), unit, steps, below, empty=empty, width=4)


def lines(
    title: str,
    about: str,
    *queries: Query,
    unit: str = "short",
    steps: tuple[float, ...] = (),
    most: float | None = None,
    empty: str = NONE,
    width: int = 8,
) -> Panel:
    """Lines over time."""
    return Panel("lines", title, about, queries, unit, steps, most=most, empty=empty, width=width)


def areas(title: str, about: str, queried: Query, unit: str = "short") -> Panel:
    """Areas on one another, which add up to a whole."""
    return Panel("areas", title, about, (queried,), unit)


def table(
    title: str, about: str, columns: Sequence[tuple[str, str]], *expressions: str, width: int = 24, empty: str = NONE
) -> Panel:
    """One line for each set of labels, one column for each query."""
    queries = tuple(query(expression) for expression in expressions)
    return Panel("table", title, about, queries, columns=tuple(columns), width=width, empty=empty)


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def _where(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""


MODEL = Variable("model", "Model", "label_values(vllm:num_requests_running, model)", many=False)
INSTANCE = Variable("instance", "Instance", "label_values(vllm:num_requests_running, instance_id)")
HOST = Variable("host", "Host", "label_values(node_uname_info, host)")
# Bounds of the histogram, as vLLM writes them: only of these the share of requests is known.
OBJECTIVE = Variable(
    "ttft", "Time to first token within (s)", values=("1.0", "0.25", "0.5", "2.5", "5.0", "10.0"), many=False
)
