"""The HTML report in a real browser: nothing sticks out on a phone, it can be looked at and printed."""

from __future__ import annotations

import html
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils import _report

BROWSER = shutil.which("chromium")
PLANS = sorted((Path(__file__).parents[2] / "fixtures" / "plans").glob("*.json"))
WIDTHS = (360, 1200)
# The report forbids scripts, so a page around it measures: by frame, what is wider than the frame.
HARNESS = """<!DOCTYPE html><body>{frames}<pre></pre><script>
addEventListener("load", () => {{
  const wide = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument.documentElement, width = frame.clientWidth;
    const out = [...page.querySelectorAll("body *")].filter(part => part.getBoundingClientRect().right > width + 0.5);
    return {{name: frame.name, shown: page.querySelectorAll("article").length, fits: page.scrollWidth <= width,
             out: out.map(part => part.outerHTML.slice(0, 200))}};
  }});
  document.querySelector("pre").textContent = JSON.stringify(wide);
}});
</script></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Debian's package chromium")


def page(plan: Path, name: str = "llama-3.3-70b") -> str:
    sample = json.loads(plan.read_text().replace("llama-3.3-70b", name))
    return _report.render(sample["plan"], sample["hosts"])


def browse(tmp_path: Path, text: str, *arguments: str) -> str:
    """Open a page in a browser that has no past and no network business of its own; what it prints."""
    source = tmp_path / "page.html"
    source.write_text(text)
    command = [
        str(BROWSER),
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


def test_nothing_is_wider_than_the_screen(tmp_path: Path) -> None:
    pages = {plan.stem: page(plan) for plan in PLANS}
    pages["long names"] = page(
        PLANS[0], "a-model-with-a-name-that-nobody-can-remember-and-that-has-80-characters-in-it-all"
    )
    frames = [
        f'<iframe name="{name} at {width}" srcdoc="{html.escape(text)}" style="width:{width}px;border:0"></iframe>'
        for name, text in pages.items()
        for width in WIDTHS
    ]
    printed = browse(tmp_path, HARNESS.format(frames="".join(frames)), "--dump-dom")
    measured = re.search(r"<pre>(.*)</pre>", printed)
    assert measured
    results = json.loads(html.unescape(measured[1]))
    assert len(results) == len(frames)
    assert all(result["shown"] for result in results)
    assert [result for result in results if result["out"] or not result["fits"]] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_it_can_be_looked_at(tmp_path: Path, width: int) -> None:
    picture = tmp_path / "report.png"
    browse(tmp_path, page(PLANS[0]), f"--screenshot={picture}", f"--window-size={width},2400")
    header = struct.unpack(">8x8xII", picture.read_bytes()[:24])
    assert header == (width, 2400)
    assert picture.stat().st_size > 50_000  # a blank page has a tenth of that


def test_it_prints(tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    browse(tmp_path, page(PLANS[0]), f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) > 1
