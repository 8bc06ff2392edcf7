"""Draws Grafana's dashboards from a Prometheus, for the docs: python -m tests.tools.pictures URL START END DIRECTORY.

A sketch of what Grafana shows, from the same JSON and the same queries: a page for each dashboard, and a picture of it
where Chromium is installed. START and END are seconds since 1970.
"""

from __future__ import annotations

import datetime
import html
import json
import math
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.tools.dashboards import DIRECTORY

COLUMN, ROW = 60, 36  # pixels of a unit of Grafana's grid
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
STYLE = """body{margin:0;background:#111217;color:#ccccdc;font:13px sans-serif;position:relative}
.p{position:absolute;box-sizing:border-box;padding:6px 8px;background:#181b1f;border:1px solid #2c3235;overflow:hidden}
.r{position:absolute;font-weight:bold;padding-top:10px}.t{font-weight:bold;margin-bottom:2px}.n{color:#8e8e9c}
.v{font-size:30px;text-align:center;padding-top:22px}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:4px 8px;border-bottom:1px solid #2c3235}
.l{font-size:11px;margin-right:10px;white-space:nowrap}"""
POWERS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
UNITS = {"reqps": " req/s", "bytes": "B", "Bps": "B/s", "hertz": "Hz", "watt": " W", "celsius": " °C"}
Samples = list[tuple[dict[str, str], list[tuple[float, float]]]]


def shown(value: float, unit: str) -> str:
    """A number as a panel of this unit says it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1000:.3g} ms"
    if unit == "dateTimeAsIso":
        return f"{datetime.datetime.fromtimestamp(value / 1000, datetime.UTC):%F %T}"
    if unit == "mbytes":
        value, unit = value * 2**20, "bytes"
    for size, name in POWERS:
        if abs(value) >= size:
            return f"{value / size:.3g} {name}{UNITS.get(unit, '').strip()}"
    return f"{value:.3g}{UNITS.get(unit, '')}"


class Prometheus:
    """Answers of a Prometheus between two times."""

    def __init__(self, url: str, start: float, end: float) -> None:
        self.url, self.start, self.end = url, start, end
        self.step = max(5, (end - start) / 240)

    def _get(self, path: str, **query: object) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[str]:
        """What a variable can be."""
        metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
        return list(self._get(f"label/{label}/values", **{"match[]": metric, "start": self.start, "end": self.end}))

    def series(self) -> list[dict[str, str]]:
        """Labels of every series."""
        return list(self._get("series", **{"match[]": '{__name__!=""}', "start": self.start, "end": self.end}))

    def rules(self) -> list[dict[str, Any]]:
        """Every rule that is in force, with its ``name`` and ``query``."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def ask(self, expression: str, *, over_time: bool) -> Samples:
        """Labels and samples, of the whole time or of its end."""
        if over_time:
            found = self._get("query_range", query=expression, start=self.start, end=self.end, step=self.step)["result"]
        else:
            found = self._get("query", query=expression, time=self.end)["result"]
        read = [(one["metric"], one["values"] if over_time else [one["value"]]) for one in found]
        numbers = [(labels, [(at, float(value)) for at, value in samples]) for labels, samples in read]
        return [(labels, [one for one in samples if math.isfinite(one[1])]) for labels, samples in numbers]


def legend(text: str, labels: dict[str, str]) -> str:
    """The name of a line."""
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def chart(panel: dict[str, Any], lines: list[tuple[str, list[tuple[float, float]]]], times: tuple[float, float]) -> str:
    """Lines, or areas on one another, as SVG."""
    field = panel["fieldConfig"]["defaults"]
    stacked = field.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    width, height, left = panel["gridPos"]["w"] * COLUMN - 20, panel["gridPos"]["h"] * ROW - 76, 62
    base: dict[float, float] = {}
    drawn = []
    for name, samples in lines:
        points = [(at, base.get(at, 0.0), value + base.get(at, 0.0)) for at, value in samples]
        if stacked:
            base.update((at, top) for at, _, top in points)
        drawn.append((name, points))
    most = field.get("max") or max((top for _, points in drawn for *_, top in points), default=1) * 1.05 or 1

    def place(at: float, value: float) -> str:
        across = left + (at - times[0]) / (times[1] - times[0]) * (width - left)
        return f"{across:.1f},{height - 4 - min(value, most) / most * (height - 14):.1f}"

    marks = "".join(
        f'<text x="0" y="{height - part * (height - 14):.0f}" fill="#8e8e9c" font-size="11">'
        f"{html.escape(shown(most * part, field['unit']))}</text>"
        for part in (0, 0.5, 1)
    )
    paths = ""
    for number, (_, points) in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(at, top) for at, _, top in points)
        if stacked:
            below = " ".join(place(at, bottom) for at, bottom, _ in reversed(points))
            paths += f'<polygon points="{line} {below}" fill="{colour}" fill-opacity="0.5"/>'
        paths += f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    names = "".join(
        f'<span class="l"><span style="color:{colour}">&#9644;</span> {html.escape(name)}</span>'
        for colour, (name, _) in zip(COLOURS, drawn, strict=False)
    )
    return f'<svg width="{width}" height="{height}">{marks}{paths}</svg><div>{names}</div>'


def stat(panel: dict[str, Any], samples: Samples) -> str:
    """The last value, in the colour of its threshold."""
    field = panel["fieldConfig"]["defaults"]
    value = samples[0][1][-1][1]
    steps = field["thresholds"]["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    tone = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}[colour] if len(steps) > 1 else "#ccccdc"
    return f'<div class="v" style="color:{tone}">{html.escape(shown(value, field["unit"]))}</div>'


def table(panel: dict[str, Any], answers: list[Samples]) -> str:
    """One line for each set of labels."""
    titles = list(panel["transformations"][-1]["options"]["renameByName"].values())
    units = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]}
    lines: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for title, samples in zip(titles, answers, strict=True):
        for labels, values in samples:
            if values:
                lines.setdefault(tuple(labels.items()), {})[title] = shown(values[-1][1], str(units[title]))
    names = list(dict.fromkeys(name for labels in lines for name, _ in labels))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [*names, *titles])
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(dict(labels).get(name, ''))}</td>" for name in names)
        + "".join(f"<td>{html.escape(cells.get(title, ''))}</td>" for title in titles)
        + "</tr>"
        for labels, cells in lines.items()
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def body(panel: dict[str, Any], source: Prometheus, chosen: dict[str, str]) -> str:
    """What is in a panel."""
    over_time = panel["type"] == "timeseries"
    answers = [source.ask(filled(target["expr"], chosen), over_time=over_time) for target in panel["targets"]]
    if not any(samples for answer in answers for _, samples in answer):
        return f'<div class="v n">{html.escape(panel["fieldConfig"]["defaults"]["noValue"])}</div>'
    if panel["type"] == "table":
        return table(panel, answers)
    if panel["type"] == "stat":
        return stat(panel, answers[0])
    lines = [
        (legend(target["legendFormat"], labels) or json.dumps(labels), samples)
        for target, answer in zip(panel["targets"], answers, strict=True)
        for labels, samples in answer
    ]
    return chart(panel, lines, (source.start, source.end))


def variables(dashboard: dict[str, Any], source: Prometheus) -> dict[str, str]:
    """A value for each variable: all, where that can be chosen, else the first."""
    found = {"__rate_interval": "1m"}
    for one in dashboard["templating"].get("list", []):
        if one["type"] == "query":
            values = source.values(one["query"])
            found[one["name"]] = one["allValue"] if one.get("multi") else (values or [""])[0]
        else:
            found[one["name"]] = one["current"]["value"]
    return found


def filled(expression: str, chosen: dict[str, str]) -> str:
    """A query with the values of the variables in their places."""
    for name, value in sorted(chosen.items(), reverse=True):
        expression = expression.replace(f"${name}", value)
    return expression


def page(dashboard: dict[str, Any], source: Prometheus) -> tuple[str, int]:
    """A dashboard as HTML, and its height in pixels."""
    chosen = variables(dashboard, source)

    def boxes() -> Iterator[str]:
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            place = f"left:{at['x'] * COLUMN}px;top:{at['y'] * ROW + 44}px;width:{at['w'] * COLUMN - 6}px"
            if panel["type"] == "row":
                yield f'<div class="r" style="{place}">{html.escape(panel["title"])}</div>'
            else:
                inner = body(panel, source, chosen)
                box = f"{place};height:{at['h'] * ROW - 6}px"
                yield f'<div class="p" style="{box}"><div class="t">{html.escape(panel["title"])}</div>{inner}</div>'

    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) * ROW + 50
    said = ", ".join(f"{name}: {value}" for name, value in chosen.items() if not name.startswith("__"))
    title, said = html.escape(dashboard["title"]), html.escape(said)
    head = f'<div style="padding:10px"><b>{title}</b> <span class="n">{said}</span></div>'
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{head}{''.join(boxes())}", bottom


def main(url: str, start: str, end: str, directory: str) -> None:
    """Draw them all."""
    chromium = shutil.which("chromium")
    source = Prometheus(url, float(start), float(end))
    for path in sorted(DIRECTORY.glob("*.json")):
        text, height = page(json.loads(path.read_text()), source)
        drawn = Path(directory).resolve() / f"{path.stem}.html"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        drawn.write_text(text)
        if chromium:
            size = f"--window-size={24 * COLUMN},{height}"
            picture = f"--screenshot={drawn.with_suffix('.png')}"
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size, picture]
            subprocess.run([chromium, *options, drawn.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
