"""The HTML report in a real browser: on a phone, on a desk and on paper it is all there, to be seen and read.

Needs Debian's package ``chromium``, which ``make unit`` brings.
"""

from __future__ import annotations

import html
import json
import re
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils import report

PLANS = sorted((Path(__file__).parents[2] / "fixtures" / "plans").glob("*.json"))
WIDTHS = (360, 1200)
# The report forbids scripts, so a page around it looks at the frames that it is shown in.
HARNESS = """<!DOCTYPE html><body>{frames}<pre></pre><script>
const box = part => part.getBoundingClientRect();
// As CSS shows it: what is hidden says nothing.
const said = part => part.checkVisibility() ? part.innerText.replace(/\\s+/g, " ").trim() : "";
const rgb = color => color.match(/[\\d.]+/g).map(Number);
const luminance = color => rgb(color).slice(0, 3).map(value => value / 255)
  .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, channel) => sum + value * [0.2126, 0.7152, 0.0722][channel], 0);
function ground(part) {{
  const color = getComputedStyle(part).backgroundColor;
  return rgb(color)[3] === 0 ? ground(part.parentElement) : color;
}}
function contrast(part) {{  // of WCAG 2
  const [dark, light] = [getComputedStyle(part).color, ground(part)].map(luminance).sort((one, other) => one - other);
  return (light + 0.05) / (dark + 0.05);
}}
function look(frame) {{
  const page = frame.contentDocument.documentElement, width = frame.clientWidth;
  const all = (selector, within = page) => [...within.querySelectorAll(selector)];
  const texts = all("body *").filter(part => part.checkVisibility() && box(part).width
    && [...part.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return {{
    name: frame.name,
    fits: page.scrollWidth <= width,
    sticks_out: all("body *").filter(part => box(part).right > width + 0.5).map(part => part.outerHTML.slice(0, 200)),
    unreadable: texts.filter(part => parseFloat(getComputedStyle(part).fontSize) < 12 || contrast(part) < 4.5)
      .map(part => [part.outerHTML.slice(0, 100), getComputedStyle(part).fontSize, contrast(part)]),
    bars: Object.fromEntries(all("svg.bar").map(bar => [bar.getAttribute("aria-label").split(":")[0], {{
      width: box(bar).width, height: box(bar).height,
      shares: Object.fromEntries(
        all("rect", bar).map(part => [part.getAttribute("class"), box(part).width / box(bar).width])),
    }}])),
    places: Object.fromEntries(all(".places li").map(place => [place.id, said(place)])),
    warnings: all(".warnings li").map(said),
    rejected: all("section").filter(part => part.querySelector("h2")?.innerText === "Rejected shapes")
      .flatMap(part => all("tbody tr", part)).map(said),
  }};
}}
addEventListener("load", () => {{
  document.querySelector("pre").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
}});
</script></body>"""


def sample(plan: Path, name: str = "llama-3.3-70b") -> dict[str, Any]:
    return dict(json.loads(plan.read_text().replace("llama-3.3-70b", name)))


def page(of: dict[str, Any]) -> str:
    return report.render(of["plan"], of["hosts"])


def browse(tmp_path: Path, text: str, *arguments: str) -> str:
    """Open a page in a browser that has no past and no network business of its own; what it prints."""
    source = tmp_path / "page.html"
    source.write_text(text)
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
        *arguments,
        source.as_uri(),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


SAMPLES = {plan.stem: sample(plan) for plan in PLANS}
SAMPLES["long names"] = sample(
    PLANS[0], "a-model-with-a-name-that-nobody-can-remember-and-that-has-80-characters-in-it-all"
)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    """What the browser shows of every sample at every width."""
    frames = [
        f'<iframe name="{name}@{width}" srcdoc="{html.escape(page(of))}" style="width:{width}px;border:0"></iframe>'
        for name, of in SAMPLES.items()
        for width in WIDTHS
    ]
    printed = browse(tmp_path_factory.mktemp("looks"), HARNESS.format(frames="".join(frames)), "--dump-dom")
    found = re.search(r"<pre>(.+)</pre>", printed)
    assert found
    return {
        (name, int(width)): look
        for look in json.loads(html.unescape(found[1]))
        for name, _, width in [look["name"].partition("@")]
    }


@pytest.fixture(params=[(name, width) for name in SAMPLES for width in WIDTHS], ids=lambda pair: f"{pair[0]}@{pair[1]}")
def shown(request: pytest.FixtureRequest, looks: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A sample, and what the browser shows of it."""
    return SAMPLES[request.param[0]], looks[request.param]


Shown = tuple[dict[str, Any], dict[str, Any]]


def test_nothing_is_wider_than_the_screen(shown: Shown) -> None:
    _, look = shown
    assert look["fits"]
    assert look["sticks_out"] == []


def test_every_text_is_large_and_dark_enough_to_be_read(shown: Shown) -> None:
    _, look = shown
    assert look["unreadable"] == []


def test_every_gpu_has_a_bar_to_scale(shown: Shown) -> None:
    of, look = shown
    owner = {
        f"{node['host']} GPU {gpu['index']}": instance["budget"]
        for instance in of["plan"]["instances"]
        for node in instance["nodes"]
        for gpu in node["gpus"]
    }
    there = [f"{host['name']} GPU {gpu['index']}" for host in of["hosts"] for gpu in host["gpu_facts"]["gpus"]]
    assert sorted(look["bars"]) == sorted(there)
    for gpu, bar in look["bars"].items():
        assert bar["width"] > 100, gpu
        assert bar["height"] > 10, gpu
        assert sum(bar["shares"].values()) == pytest.approx(1, abs=0.01), gpu
        budget = owner.get(gpu, {})
        if budget.get("weights") and budget.get("total"):
            assert bar["shares"]["weights"] == pytest.approx(budget["weights"] / budget["total"], abs=0.01), gpu


def test_every_instance_has_its_place(shown: Shown) -> None:
    of, look = shown
    instances = of["plan"]["instances"]
    assert sorted(look["places"]) == sorted(instance["id"] for instance in instances)
    for instance in instances:
        place, endpoint = look["places"][instance["id"]], instance["endpoint"]
        for text in (instance["id"], f"{endpoint['address']}:{endpoint['port']}", f"{endpoint['host']} GPU "):
            assert text in place


def test_warnings_and_rejected_shapes_are_there(shown: Shown) -> None:
    of, look = shown
    assert look["warnings"] == of["plan"]["warnings"]
    assert len(look["rejected"]) == len(of["plan"]["rejected"])
    for row, said in zip(of["plan"]["rejected"], look["rejected"], strict=True):
        for text in (row["model"], row["shape"], row["reason"], row["knob"]):
            assert " ".join(text.split()) in said


@pytest.mark.parametrize("width", WIDTHS)
def test_it_can_be_looked_at(tmp_path: Path, width: int) -> None:
    picture = tmp_path / "report.png"
    browse(tmp_path, page(SAMPLES["hgx-h100"]), f"--screenshot={picture}", f"--window-size={width},2400")
    header = struct.unpack(">8x8xII", picture.read_bytes()[:24])
    assert header == (width, 2400)
    assert picture.stat().st_size > 50_000  # a blank page has a tenth of that


def test_it_prints_with_all_its_sections_and_the_bars(tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    options = ("--no-pdf-header-footer", "--generate-pdf-document-outline")
    browse(tmp_path, page(SAMPLES["l40s-pcie"]), f"--print-to-pdf={paper}", *options)
    document = paper.read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", document)) > 1
    titles = {title.decode() for title in re.findall(rb"/Title \(([^)]*)\)", document)}
    assert titles >= {"Warnings", "Models", "Hosts GiB per GPU", "Instances", "Rejected shapes"}
    assert titles >= {f"{host['name']} {host['address']}" for host in SAMPLES["l40s-pcie"]["hosts"]}
    # Browsers leave out backgrounds on paper; the bars are drawings, whose colours are in what the pages draw.
    drawn = b"".join(
        zlib.decompressobj().decompress(stream)
        for stream in re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)endstream", document, re.DOTALL)
    )
    for color in ("3a5a92", "2a9d78", "d4912f"):  # weights, KV cache, activations
        fill = " ".join(f"{value / 255:.4f}".rstrip("0").lstrip("0") for value in bytes.fromhex(color))
        assert f"{fill} rg".encode() in drawn
