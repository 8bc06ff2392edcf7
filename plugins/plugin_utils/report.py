"""The fleet plan as one self-contained HTML page: no script, nothing from elsewhere; same input, same bytes.

Runs on the controller only (it reads ``report.css`` beside it), for the modules fleet_report and fleet_compare.

Beyond the fields that every plan has, it shows where present:

- ``budget.error``: half width of the error band of any budget field, in that field's own unit
- ``budget.pinned``: what every boot is held to (any budget field), with ``margin`` and ``warm_extra`` in GiB per GPU
- ``instance.effective``: what the running engine reported, as ``engine_ready`` returns it

None means "not known" everywhere and is shown as that, never as zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate, groupby
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, TypeVar

__all__ = ["Segment", "bar_segments", "render"]

T = TypeVar("T")
Record = Mapping[str, Any]

# What a budget names, in the order in which vLLM claims it.
PARTS = {
    "weights": "weights",
    "activations": "activations",
    "cuda_graphs": "CUDA graphs",
    "non_torch": "non-torch",
    "kv_cache": "KV cache",
}
# What there is of a GPU beside those.
RESTS = {"margin": "held back", "unknown": "not known", "unrequested": "unrequested", "free": "free"}
LABELS = {**PARTS, **RESTS}

# The rows of an instance's table: name in the plan -> label and number format.
FIELDS = {
    "total": ("GPU memory", ".2f"),
    "requested": ("requested", ".2f"),
    **{part: (label, ".2f") for part, label in PARTS.items()},
    "kv_cache_tokens": ("KV tokens", ",.0f"),
    "max_concurrency": ("requests at full context", ",.2f"),
    "max_model_len": ("context length", ",.0f"),
    "gpu_memory_utilization": ("utilisation", ".3g"),
}
# Those that are not in the budget: what the engine is told.
ARGUMENTS = ("max_model_len", "gpu_memory_utilization")
# Those that a running engine reports, some under a name of its own.
REPORTED = ("kv_cache_tokens", "max_concurrency", *ARGUMENTS)
EFFECTIVE_NAMES = {"kv_cache_tokens": "kv_cache_size_tokens", "max_concurrency": "kv_cache_max_concurrency"}

LINKS = {"nvlink": "NVLink", "pcie": "PCIe", "host": "no peer link"}
NOT_KNOWN = '<span class="none">not known</span>'

# The content security policy makes "self-contained" a promise that the browser keeps.
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Fleet plan</title>
<style>
$css</style>
</head>
<body>
<svg class="defs" width="0" height="0" aria-hidden="true"><pattern id="hatch" width="6" height="6" \
patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M1 0V6"/></pattern></svg>
<main>
$body
</main>
</body>
</html>
""")


class Segment(NamedTuple):
    """One stretch of a memory bar."""

    kind: str  # a key of LABELS
    gib: float | None
    start: float  # percent of the bar, like width
    width: float


def render(plan: Record, hosts: Sequence[Record] = ()) -> str:
    """The page for a fleet plan; ``hosts`` (name, address, gpu_facts) add the hardware and what is free on it."""
    instances = plan["instances"]
    names = sorted({instance["model"] for instance in instances} | {row["model"] for row in plan["rejected"]})
    # Steps of the golden angle keep the hues of any number of models apart.
    hues = {name: round(265 + 137.5 * position) % 360 for position, name in enumerate(names)}
    fleet = _fleet(instances, hosts)
    sections = (
        _headline(plan, fleet, names),
        _changes(plan.get("changes", ())),
        _warnings(plan["warnings"]),
        _models(instances, hues),
        _hosts(fleet, hues),
        _instances(instances, hues),
        _rejected(plan["rejected"]),
    )
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return PAGE.substitute(css=css, body="\n".join(filter(None, sections)))


def bar_segments(budget: Record | None, total_gib: float | None) -> list[Segment]:
    """Split the memory of one GPU; the widths always add up to 100 %.

    ``budget`` is None for a GPU without an instance; ``total_gib`` is the hardware's, for a budget without a total.
    A budget larger than its GPU (a broken plan) stretches the scale instead of being cut off.
    """
    if budget is None:
        return [Segment("unknown" if total_gib is None else "free", total_gib, 0, 100)]
    budget = {**budget, **(budget.get("pinned") or {})}  # the engine takes what it is told to
    sizes = {part: budget[part] for part in PARTS if budget.get(part) is not None}
    incomplete = len(sizes) < len(PARTS)
    used = sum(sizes.values())
    total = _known(budget.get("total"), total_gib)
    requested = _known(budget.get("requested"), total)
    if requested is not None:
        sizes["unknown" if incomplete else "margin"] = requested - used
        sizes["unrequested"] = _known(total, requested) - max(requested, used)
    elif incomplete:
        sizes = {}  # some parts without any whole have no scale
    sizes = {kind: gib for kind, gib in sizes.items() if gib >= 0.02}  # less is rounding
    if not sizes:
        return [Segment("unknown", None, 0, 100)]
    scale = sum(sizes.values())
    # The edges are rounded, not the widths: so no error adds up.
    edges = [0.0, *(round(100 * edge / scale, 2) for edge in accumulate(sizes.values()))]
    return [
        Segment(kind, gib, start, end - start)
        for (kind, gib), start, end in zip(sizes.items(), edges, edges[1:], strict=False)
    ]


class _Gpu(NamedTuple):
    number: int
    facts: Record  # empty where nobody asked the hardware
    instance: Record | None


class _Host(NamedTuple):
    name: str
    address: str
    facts: Record
    gpus: list[_Gpu]


def _fleet(instances: Iterable[Record], hosts: Iterable[Record]) -> list[_Host]:
    """Join plan and hardware; hosts that only the plan names are shown too."""
    taken: dict[str, dict[int, Record]] = {}
    for instance in instances:
        for node in instance["nodes"]:
            taken.setdefault(node["host"], {}).update(dict.fromkeys(_indices(node), instance))
    known = {host["name"]: host for host in hosts}
    fleet = []
    for name in [*known, *sorted(taken.keys() - known.keys())]:
        host, here = known.get(name, {}), taken.get(name, {})
        facts = host.get("gpu_facts") or {}
        gpus = {gpu["index"]: gpu for gpu in facts.get("gpus", ())}
        joined = [_Gpu(index, gpus.get(index, {}), here.get(index)) for index in sorted({*gpus, *here})]
        fleet.append(_Host(name, host.get("address") or "", facts, joined))
    return fleet


# Sections of the page, from top to bottom. Every value that is not a number made here passes ``_text`` or ``escape``.


def _headline(plan: Record, fleet: Sequence[_Host], names: Sequence[str]) -> str:
    gpus = [gpu for host in fleet for gpu in host.gpus]
    used = sum(gpu.instance is not None for gpu in gpus)
    unplaced = len(names) - len({instance["model"] for instance in plan["instances"]})
    tiles = (
        ("hosts", len(fleet), ""),
        ("GPUs in use", f"{used} <small>of {len(gpus)}</small>", ""),
        ("models", len(names), ""),
        ("instances", len(plan["instances"]), ""),
        ("not placed", unplaced, "bad" if unplaced else ""),
        ("warnings", len(plan["warnings"]), "warn" if plan["warnings"] else ""),
    )
    cells = "".join(f'<div class="{style}"><dt>{label}</dt><dd>{count}</dd></div>' for label, count, style in tiles)
    return f'<header><h1>Fleet plan</h1><dl class="tiles">{cells}</dl></header>'


def _warnings(warnings: Sequence[Any]) -> str:
    return _section("Warnings", _list(warnings, "warnings")) if warnings else ""


def _changes(changes: Sequence[Record]) -> str:
    """What happens to what runs now."""
    rows = []
    for row in changes:
        style, more = ("bad", ", the last of its model") if row["last"] else ("warn", "")
        action = f'<b class="{style}">{_text(row["action"])}{more}</b>'
        rows.append({"running instance": _text(row["instance"]), "is": action, "because": _text(row["reason"])})
    return _section("Changes", _table(rows, "wide stack")) if rows else ""


def _models(instances: Sequence[Record], hues: Mapping[str, int]) -> str:
    rows = []
    for name, hue in hues.items():
        own = [instance for instance in instances if instance["model"] == name]
        shapes = Counter(_shape(instance["parallelism"]) for instance in own)
        row = {
            "model": f'<b class="chip" style="--hue:{hue}">{escape(name)}</b>',
            "instances": "<br>".join(f"{count} &times; {shape}" for shape, count in shapes.items())
            or '<b class="bad">not placed</b>',
        }
        for field in ("kv_cache_tokens", "max_concurrency"):
            promises = [_promise(instance, field) for instance in own]
            known = [promise for promise in promises if promise is not None]
            total = sum(known) if len(known) == len(own) else None
            row[f"{FIELDS[field][0]}, in all"] = _number(field, total) if own else ""
        rows.append(row)
    return _section("Models", _table(rows, "wide stack")) if rows else ""


def _hosts(fleet: Iterable[_Host], hues: Mapping[str, int]) -> str:
    legend = "".join(f"<li>{_swatch(kind)}{label}</li>" for kind, label in LABELS.items())
    cards = "".join(_host(host, hues) for host in fleet)
    return _section(
        "Hosts <small>GiB per GPU</small>",
        f'<ul class="legend" aria-label="Legend of the memory bars">{legend}</ul><div class="cards">{cards}</div>',
    )


def _host(host: _Host, hues: Mapping[str, int]) -> str:
    names = Counter(gpu.facts["name"] for gpu in host.gpus if gpu.facts.get("name"))
    hardware = [f"{count} &times; {escape(name)}" for name, count in names.items()]
    if host.gpus and host.facts.get("link"):
        hardware.append(_text(LINKS.get(host.facts["link"], host.facts["link"])))
    if host.facts.get("driver_version"):
        hardware.append(f"driver {_text(host.facts['driver_version'])}")
    groups: dict[str, list[_Gpu]] = {}
    for gpu in host.gpus:
        groups.setdefault(gpu.instance["id"] if gpu.instance else "", []).append(gpu)
    parts, told = [], None
    for gpus in groups.values():
        budget = gpus[0].instance["budget"] if gpus[0].instance else None
        parts.append(_group(host.name, gpus, budget, hues, numbers=budget != told))  # said once for like replicas
        told = budget
    body = "".join(parts) or f"<p>No GPUs: {_text(host.facts.get('reason'))}</p>"
    return (
        f'<article class="card"><h3>{escape(host.name)} <small>{escape(host.address)}</small></h3>'
        f'<p class="note">{" &middot; ".join(hardware)}</p>{body}</article>'
    )


def _group(host: str, gpus: Sequence[_Gpu], budget: Record | None, hues: Mapping[str, int], *, numbers: bool) -> str:
    """The GPUs of a host that one instance has: they share the label, the colour and the budget. Or those of nobody."""
    instance = gpus[0].instance
    bars = []
    for gpu in gpus:
        total = _known(budget and budget.get("total"), _hardware_gib(gpu.facts))
        segments = bar_segments(budget, total)
        flags = (("lost", "lost", "bad"), ("mig_enabled", "MIG", "warn"))
        marks = "".join(f' <b class="{style}">{mark}</b>' for key, mark, style in flags if gpu.facts.get(key))
        label = f"{host} GPU {gpu.number}: " + ", ".join(map(_segment_text, segments))
        size = _number("total", total)
        bars.append(f"<li><span>GPU {gpu.number}{marks}</span>{_bar(label, segments)}<span>{size}</span></li>")
    if instance is None:
        return f'<section class="group"><h4>not in use</h4><ul class="gpus">{"".join(bars)}</ul></section>'
    node = next(node for node in instance["nodes"] if node["host"] == host)
    rank = f" &middot; rank {node['rank']}, {_text(node['role'])}" if len(instance["nodes"]) > 1 else ""
    legend = "".join(f"<li>{_swatch(part.kind)}{_segment_text(part)}</li>" for part in segments if numbers)
    return (
        f'<section class="group" style="--hue:{hues[instance["model"]]}">'
        f'<h4><a class="chip" href="#{escape(instance["id"])}">{escape(instance["id"])}</a>'
        f" <small>{_shape(instance['parallelism'])}{rank}</small></h4>"
        f'<ul class="gpus">{"".join(bars)}</ul><ul class="legend">{legend}</ul></section>'
    )


def _instances(instances: Iterable[Record], hues: Mapping[str, int]) -> str:
    """One card per model and plan: replicas that differ in their place only share it."""
    alike: dict[str, list[Record]] = {}
    for instance in instances:
        key = [instance["model"], _shape_of(instance), _planned(instance), instance["why"]]
        alike.setdefault(repr(key), []).append(instance)
    cards = "".join(_replicas(replicas, hues[replicas[0]["model"]]) for replicas in alike.values())
    return _section("Instances", f'<div class="cards">{cards}</div>') if cards else ""


def _replicas(replicas: Sequence[Record], hue: int) -> str:
    first = replicas[0]
    places = "".join(
        f'<li id="{escape(instance["id"])}"><b>{escape(instance["id"])}</b> {_place(instance)}</li>'
        for instance in replicas
    )
    return (
        f'<article class="card owned" style="--hue:{hue}">'
        f"<h3>{escape(first['model'])} <small>{len(replicas)} &times; {_shape_of(first)} &middot; "
        f"confidence: {_text(first['budget'].get('confidence'))}</small></h3>"
        f'<ul class="places">{places}</ul>{_budget(first)}{_speed(first)}{_effective(replicas)}'
        f"<h4>Why</h4>{_list(first['why'], 'why')}</article>"
    )


def _place(instance: Record) -> str:
    endpoint, nodes = instance["endpoint"], instance["nodes"]
    roles = [f", {_text(node['role'])}" if len(nodes) > 1 else "" for node in nodes]
    where = "; ".join(
        f"{escape(node['host'])} GPU {_ranges(_indices(node))}{role}" for node, role in zip(nodes, roles, strict=True)
    )
    return f"<code>http://{_text(endpoint['address'])}:{_text(endpoint['port'])}</code> <small>{where}</small>"


def _budget(instance: Record) -> str:
    """The account of one GPU: what is predicted, how sure that is, and what it is pinned to."""
    predicted = _planned(instance)
    error, pinned = predicted.get("error") or {}, predicted.get("pinned") or {}
    left = dict.fromkeys(ARGUMENTS, "left to vLLM")
    rows = []
    for field, (label, _) in FIELDS.items():
        row = {
            "GiB per GPU": (_swatch(field) if field in PARTS else "") + label,
            "predicted": _number(field, _known(predicted.get(field), left.get(field))),
        }
        for column, values in (("&plusmn;", error), ("pinned", pinned)):
            if values:
                row[column] = _number(field, values[field]) if field in values else ""
        rows.append(row)
    notes = [
        f"{text} {_number('kv_cache', pinned[key])} GiB."
        for key, text in (
            ("margin", "Pinned below the prediction by"),
            ("warm_extra", "Unpinned, a warm boot could add"),
        )
        if pinned.get(key) is not None
    ]
    return _table(rows, "numbers") + (f'<p class="note">{" ".join(notes)}</p>' if notes else "")


def _speed(instance: Record) -> str:
    """How fast it is predicted to be, and by what factor that may be wrong."""
    speed = instance.get("speed")
    if not speed:
        return ""
    told = {
        "tokens/s of one request alone": ("decode", "decode", ",.0f"),
        "seconds to the first token, prompt of 1,000": ("first_token_1000", "first_token", ".2g"),
        "seconds to the first token, prompt of 8,000": ("first_token_8000", "first_token", ".2g"),
        f"tokens/s of {speed['requests']:,} at once": ("throughput", "throughput", ",.0f"),
    }
    rows = [
        {"predicted speed": label, "value": format(speed[key], style), "within a factor of": str(speed["band"][band])}
        for label, (key, band, style) in told.items()
    ]
    return _table(rows, "numbers")


def _effective(replicas: Iterable[Record]) -> str:
    """What the running engines reported, beside what was promised."""
    rows = []
    for instance in replicas:
        effective = instance.get("effective")
        if not effective:
            continue
        row = {"running engine": escape(instance["id"])}
        for field in REPORTED:
            came = effective.get(EFFECTIVE_NAMES.get(field, field))
            row[FIELDS[field][0]] = (
                f"{_number(field, came)} <small>{_difference(_promise(instance, field), came)}</small>"
            )
        rows.append(row)
    return _table(rows, "stack") if rows else ""


def _rejected(rejected: Sequence[Record]) -> str:
    rows = [
        {
            "model": _text(row["model"]),
            "shape": _shape(row.get("shape")),
            "reason": _text(row.get("reason")),
            "needed": _number("total", row.get("needed_gib")),
            "available": _number("total", row.get("available_gib")),
            "nearest fit": _shape(_known(row.get("nearest_fit"), "none")),
            "what to change": _text(_known(row.get("knob"), "nothing")),
        }
        for row in rejected
    ]
    return _section("Rejected shapes", _table(rows, "wide stack")) if rows else ""


# Small pieces of the page.


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _list(items: Iterable[Any], style: str) -> str:
    return f'<ul class="{style}">{"".join(f"<li>{_text(item)}</li>" for item in items)}</ul>'


def _table(rows: Sequence[Mapping[str, str]], style: str = "") -> str:
    """A table of ready HTML cells under the keys of the first row, which ``data-label`` repeats for narrow screens."""
    head = "".join(f'<th scope="col">{key}</th>' for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f'<td data-label="{key}"><span>{cell}</span></td>' for key, cell in row.items()) + "</tr>"
        for row in rows
    )
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _bar(label: str, segments: Iterable[Segment]) -> str:
    """A drawing rather than coloured boxes: browsers print it even where they leave out backgrounds."""
    parts = "".join(
        f'<rect class="{part.kind}" x="{part.start:.2f}%" width="{part.width:.2f}%" height="100%">'
        f"<title>{_segment_text(part)}</title></rect>"
        for part in segments
    )
    return f'<svg class="bar" role="img" aria-label="{escape(label)}">{parts}</svg>'


def _segment_text(part: Segment) -> str:
    return LABELS[part.kind] + (f" {part.gib:.2f}" if part.gib is not None else "")


def _swatch(kind: str) -> str:
    return f'<svg class="swatch" aria-hidden="true"><rect class="{kind}" width="100%" height="100%"/></svg>'


def _shape(shape: object) -> str:
    if not isinstance(shape, Mapping):
        return _text(shape)
    words = [f"{key} {_text(shape[key])}" for key in ("tensor", "pipeline") if shape.get(key, 1) != 1]
    return " &times; ".join(words or ["one GPU"]) + (" + expert parallel" if shape.get("expert") else "")


def _indices(node: Record) -> list[int]:
    return [gpu["index"] for gpu in node["gpus"]]


def _ranges(numbers: Iterable[int]) -> str:
    """0, 1, 2, 5 -> 0-2, 5, as people write it."""
    runs = [
        [number for _, number in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}&ndash;{run[-1]}" for run in runs)


def _shape_of(instance: Record) -> str:
    hosts = len(instance["nodes"])
    over = f" over {hosts} hosts" if hosts > 1 else ""
    executor = f", {_text(instance['executor'])}" if instance["executor"] else ""
    return _shape(instance["parallelism"]) + over + executor


def _planned(instance: Record) -> dict[str, Any]:
    """The budget of an instance, with what its arguments add to the account."""
    arguments = instance["engine_args"]
    return {**instance["budget"], **{field: arguments.get(field.replace("_", "-")) for field in ARGUMENTS}}


def _promise(instance: Record, field: str) -> float | None:
    """What users can count on: the pinned value, else the prediction."""
    planned = _planned(instance)
    return _known((planned.get("pinned") or {}).get(field), planned.get(field))


def _difference(reference: object, came: object) -> str:
    if not isinstance(reference, (int, float)) or not isinstance(came, (int, float)) or not reference:
        return ""
    return "exact" if came == reference else f"{100 * (came / reference - 1):+.2f} %"


def _number(field: str, value: object) -> str:
    return format(value, FIELDS[field][1]) if isinstance(value, (int, float)) else _text(value)


def _text(value: object) -> str:
    """Any plan value as escaped text."""
    if value is None:
        return NOT_KNOWN
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(key))} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return escape(str(value))


def _known(*values: T | None) -> T | None:
    """The first value that is not None; None without one."""
    return next((value for value in values if value is not None), None)


def _hardware_gib(facts: Record) -> float | None:
    """What of a GPU an engine can use: all but the driver's own reserve."""
    total = facts.get("total_gib")
    return None if total is None else total - (facts.get("reserved_gib") or 0)
