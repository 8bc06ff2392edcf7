"""The pages that alerts lead to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.alerts import ALERTS, groups

from tests.tools import docs

PAGES = {path.stem: path for path in docs.ALERTS.glob("*.md") if path.stem != "README"}
DEFAULTS = yaml.safe_load((docs.ROOT / "roles/prometheus/defaults/main.yml").read_text())
SECTIONS = ("What it means", "First look", "What cures it")


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert set(PAGES) == set(ALERTS)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_means_what_to_look_at_and_what_cures_it(name: str) -> None:
    by_hand = PAGES[name].read_text().partition(docs.ALERTS_END)[2]
    _, *parts = re.split(r"^## (.+)$", by_hand, flags=re.MULTILINE)
    said = dict(zip(parts[::2], parts[1::2], strict=True))

    assert tuple(said) == SECTIONS
    assert [title for title, text in said.items() if len(text) < 50] == []
    assert "\n```" in said["First look"]


def test_alerts_lead_to_their_pages() -> None:
    rules = [rule for group in groups({}, DEFAULTS["prometheus_runbook_base"])["groups"] for rule in group["rules"]]
    led_to = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule}

    assert led_to
    for name, url in led_to.items():
        assert docs.ROOT / url.partition("/blob/main/")[2] == PAGES[name]


def heads(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in found}


@pytest.mark.parametrize("page", [docs.ALERTS / "README.md", *PAGES.values()], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, head in re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", page.read_text()):
        linked = (page.parent / target).resolve()
        assert linked.is_file(), target
        assert not head or head in heads(linked), f"{target}#{head}"
