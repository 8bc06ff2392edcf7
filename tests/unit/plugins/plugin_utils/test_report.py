"""The HTML report: well-formed, escaped, honest about what is not known, and bars that add up."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils import report

from tests.unit import fleets

PLANS = sorted((Path(__file__).parents[2] / "fixtures" / "plans").glob("*.json"))
VOID = {"meta", "br"}

BUDGET = {
    "total": 80.0,
    "requested": 72.0,
    "weights": 30.0,
    "activations": 2.0,
    "cuda_graphs": 1.0,
    "non_torch": 1.0,
    "kv_cache": 38.0,
    "kv_cache_tokens": 123456,
    "max_concurrency": 3.5,
    "confidence": "high",
}


class Page(HTMLParser):
    """Reads a page strictly: every element must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data.strip())

    def all(self, tag: str, style: str | None = None) -> list[dict[str, str]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and (style is None or style in attrs.get("class", "").split())
        ]

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.texts))


def plan(**budget: object) -> dict[str, Any]:
    """One instance on GPU 0 of gpu1."""
    return {
        "version": 2,
        "instances": [
            {
                "id": "tiny-1",
                "model": "tiny",
                "endpoint": {"host": "gpu1", "address": "10.0.0.11", "port": 8000},
                "parallelism": {"tensor": 1, "pipeline": 1, "expert": False},
                "executor": None,
                "nodes": [{"host": "gpu1", "rank": 0, "role": "head", "gpus": [{"index": 0, "uuid": None}]}],
                "engine_args": {"model": "/srv/tiny", "max-model-len": 4096, "gpu-memory-utilization": 0.9},
                "budget": {**BUDGET, **budget},
                "why": ["one GPU: the model fits"],
            }
        ],
        "rejected": [],
        "warnings": [],
    }


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_samples_are_well_formed_and_self_contained(path: Path) -> None:
    sample = json.loads(path.read_text())
    html = report.render(sample["plan"], sample["hosts"])
    page = Page(html)
    assert html == report.render(copy.deepcopy(sample["plan"]), copy.deepcopy(sample["hosts"]))
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.elements}
    assert not any(name in attrs for _, attrs in page.elements for name in ("src", "srcset", "onclick"))
    assert "url(" not in html.replace("url(#hatch)", "")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"] for attrs in page.all("a")} <= {f"#{name}" for name in ids}
    for instance in sample["plan"]["instances"]:
        assert f"http://{instance['endpoint']['address']}:{instance['endpoint']['port']}" in page.text
    for line in [*sample["plan"]["warnings"], *(row["reason"] for row in sample["plan"]["rejected"])]:
        assert line in page.text


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_gpu_has_a_bar_that_is_full_and_has_words(path: Path) -> None:
    sample = json.loads(path.read_text())
    page = Page(report.render(sample["plan"], sample["hosts"]))
    bars: list[list[dict[str, str]]] = []
    for tag, attrs in page.elements:
        if tag == "svg":
            bars.append([attrs])
        elif tag == "rect" and bars:
            bars[-1].append(attrs)
    bars = [bar for bar in bars if bar[0].get("class") == "bar"]
    assert len(bars) == sum(len(host["gpu_facts"]["gpus"]) for host in sample["hosts"])
    for svg, *rects in bars:
        assert svg["role"] == "img"
        assert svg["aria-label"]
        end = 0.0
        for rect in rects:
            assert float(rect["x"].rstrip("%")) == pytest.approx(end, abs=0.001)
            end += float(rect["width"].rstrip("%"))
        assert end == pytest.approx(100, abs=0.001)


@pytest.mark.parametrize(
    ("budget", "total", "expected"),
    [
        (None, 80.0, {"free": 80.0}),
        (None, None, {"unknown": None}),  # a lost GPU
        (dict.fromkeys(BUDGET), None, {"unknown": None}),
        (dict.fromkeys(BUDGET), 80.0, {"unknown": 80.0}),
        ({**dict.fromkeys(BUDGET), "weights": 30.0}, None, {"unknown": None}),
        (
            {**dict.fromkeys(BUDGET), "requested": 72.0, "weights": 30.0},
            80.0,
            {"weights": 30.0, "unknown": 42.0, "unrequested": 8.0},
        ),
        (
            BUDGET,
            None,
            {
                "weights": 30.0,
                "activations": 2.0,
                "cuda_graphs": 1.0,
                "non_torch": 1.0,
                "kv_cache": 38.0,
                "unrequested": 8.0,
            },
        ),
        (
            {**BUDGET, "pinned": {"kv_cache": 36.0}},
            None,
            {
                "weights": 30.0,
                "activations": 2.0,
                "cuda_graphs": 1.0,
                "non_torch": 1.0,
                "kv_cache": 36.0,
                "margin": 2.0,
                "unrequested": 8.0,
            },
        ),
        (
            {**BUDGET, "weights": 100.0},  # more than the GPU has: nothing is cut off
            None,
            {"weights": 100.0, "activations": 2.0, "cuda_graphs": 1.0, "non_torch": 1.0, "kv_cache": 38.0},
        ),
    ],
)
def test_segments(budget: dict[str, Any] | None, total: float | None, expected: dict[str, float | None]) -> None:
    segments = report.bar_segments(budget, total)
    assert {segment.kind: segment.gib for segment in segments} == expected
    assert segments[0].start == 0
    assert sum(segment.width for segment in segments) == pytest.approx(100)


def test_unknown_is_said_and_never_zero() -> None:
    page = Page(report.render(plan(**{**dict.fromkeys(BUDGET), "confidence": "none"})))
    assert "confidence: none" in page.text
    assert page.text.count("not known") >= len(report.FIELDS) - 2  # the arguments are known
    assert "0.00" not in page.text
    assert page.all("svg", "bar")[0]["aria-label"] == "gpu1 GPU 0: not known"


def test_text_is_escaped_everywhere() -> None:
    evil = "\"><script>alert(1)</script>&'"
    wish = plan(confidence=evil)
    instance = wish["instances"][0]
    instance.update(id=evil, model=evil, executor=evil, why=[evil], effective={"max_model_len": evil})
    instance["endpoint"] = {"host": evil, "address": evil, "port": evil}
    instance["parallelism"] = {"tensor": evil, "pipeline": evil, "expert": True}
    instance["nodes"] = [
        {"host": evil, "rank": 0, "role": evil, "gpus": [{"index": 0, "uuid": None}]},
        {**instance["nodes"][0], "role": evil},
    ]
    instance["engine_args"] = {"max-model-len": evil}
    keys = ("model", "shape", "reason", "needed_gib", "available_gib", "nearest_fit", "knob")
    wish["rejected"] = [dict.fromkeys(keys, evil), {**dict.fromkeys(keys), "model": "x", "nearest_fit": {evil: [evil]}}]
    wish["warnings"] = [evil, {evil: evil}]
    facts = {"driver_version": evil, "link": evil, "gpus": [{"index": 0, "name": evil, "total_gib": 1.0}]}
    hosts = [
        {"name": evil, "address": evil, "gpu_facts": facts},
        {"name": evil + "2", "address": evil, "gpu_facts": {"gpus": [], "reason": evil}},
    ]
    html = report.render(wish, hosts)
    page = Page(html)
    assert not page.all("script")
    assert "<script" not in html
    assert page.text.count("alert(1)") > 20


def test_pinned_and_effective_values_stand_beside_the_prediction() -> None:
    wish = plan(error={"kv_cache": 0.4}, pinned={"kv_cache": 37.5, "kv_cache_tokens": 120000, "margin": 0.5})
    wish["instances"][0]["effective"] = {"kv_cache_size_tokens": 120000, "kv_cache_max_concurrency": 3.43}
    text = Page(report.render(wish)).text
    for piece in ("± pinned", "KV cache 38.00 0.40 37.50", "KV tokens 123,456 120,000", "by 0.50 GiB"):
        assert piece in text
    assert "tiny-1 120,000 exact 3.43 -2.00 %" in text
    assert "pinned" not in Page(report.render(plan())).text


def test_works_from_the_plan_alone() -> None:
    page = Page(report.render(plan()))
    assert "gpu1" in page.text
    assert "weights 30.00" in page.all("svg", "bar")[0]["aria-label"]


def test_replicas_share_a_card_and_a_model_without_a_place_stands_out() -> None:
    wish = plan()
    second = copy.deepcopy(wish["instances"][0])
    second.update(
        id="tiny-2", nodes=[{"host": "gpu1", "rank": 0, "role": "head", "gpus": [{"index": 1, "uuid": None}]}]
    )
    wish["instances"].append(second)
    wish["rejected"] = [{"model": "huge", "shape": {"tensor": 8, "pipeline": 2}, "reason": "too large"}]
    page = Page(report.render(wish))
    assert len(page.all("article", "owned")) == 1
    assert "2 \N{MULTIPLICATION SIGN} one GPU" in page.text
    assert "huge not placed" in page.text
    assert "tensor 8 \N{MULTIPLICATION SIGN} pipeline 2" in page.text


def test_every_node_of_an_instance_over_hosts_has_its_place() -> None:
    hosts = [fleets.host("gpu1"), fleets.host("gpu2")]
    page = Page(report.render(fleets.plan([{"name": "deepseek-v3"}], *hosts), hosts))
    assert "tensor 8 \N{MULTIPLICATION SIGN} pipeline 2 over 2 hosts, mp" in page.text
    assert "gpu1 GPU 0\N{EN DASH}7, head; gpu2 GPU 0\N{EN DASH}7, worker" in page.text
    assert "rank 0, head" in page.text
    assert "rank 1, worker" in page.text
    assert len([bar for bar in page.all("svg", "bar") if "weights" in bar["aria-label"]]) == 16


def test_gpus_are_named_in_ranges() -> None:
    wish = plan()
    wish["instances"][0]["nodes"][0]["gpus"] = [{"index": index, "uuid": None} for index in (5, 0, 1, 2)]
    assert "GPU 0\N{EN DASH}2, 5" in Page(report.render(wish)).text


def test_changes_stand_out_and_name_their_reason() -> None:
    rows = [
        {"instance": "a-1", "model": "a", "action": "stopped", "reason": "it makes room for <b>", "last": True},
        {"instance": "c-1", "model": "c", "action": "moved", "reason": "to gpu2 GPU 0", "last": False},
    ]
    page = report.render(plan() | {"changes": rows})
    assert "<h2>Changes</h2>" in page
    assert '<b class="bad">stopped, the last of its model</b>' in page
    assert '<b class="warn">moved</b>' in page
    assert "it makes room for &lt;b&gt;" in page
    assert "<h2>Changes</h2>" not in report.render(plan() | {"changes": []})


def test_speeds_stand_with_their_bands() -> None:
    speed = {
        "decode": 1234.5,
        "first_token_1000": 0.0271,
        "first_token_8000": 0.23,
        "throughput": 3451.0,
        "requests": 356,
        "band": {"decode": 1.5, "first_token": 3.5, "throughput": 1.85},
    }
    made = json.loads(PLANS[0].read_text())["plan"]
    made["instances"] = [instance | {"speed": speed} for instance in made["instances"]]
    page = report.render(made)
    for words in ("1,234", "0.027", "0.23", "tokens/s of 356 at once", "3,451", "1.85"):
        assert f"<span>{words}</span>" in page, words
    made["instances"] = [instance | {"speed": None} for instance in made["instances"]]
    assert "predicted speed" not in report.render(made)
