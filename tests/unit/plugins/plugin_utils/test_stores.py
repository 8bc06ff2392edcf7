"""What of an inventory keeps models from coming to the hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.stores import mistakes

DEFAULTS = Path(__file__).parents[4] / "roles/model_store/defaults/main.yml"


def found(**variables: Any) -> list[str]:
    return mistakes(["one", "two"], {"one": variables, "two": variables})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"model_store_dir": ""},
        {"model_store_dir": "/srv/models", "model_store_download_host": "two", "model_store_port": "29401"},
        {"model_store_margin_gib": 0.5},
        {"model_store_margin_gib": 0},
        {"model_store_dir": "{{ ansible_facts.mounts[0].mount }}"},
    ],
)
def test_what_can_be(variables: dict[str, Any]) -> None:
    assert found(**variables) == []


def test_the_defaults_can_be() -> None:
    assert found(**yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"model_store_dir": "srv/models"}, "model_store_dir of one, two is 'srv/models': it takes an absolute path."),
        ({"model_store_dir": "/run/models"}, "model_store_dir of one, two is '/run/models': "),
        ({"model_store_dir": "/var/lib"}, "model_store_dir of one, two is '/var/lib': "),
        (
            {"model_store_download_host": "three"},
            "model_store_download_host of one, two is 'three', which is none of gpu_hosts. Name one of them, or leave",
        ),
        ({"model_store_port": "abc"}, "model_store_port of one, two is 'abc', no number from 1 to 65535."),
        ({"model_store_port": 65536}, "model_store_port of one, two is '65536', no number from 1 to 65535."),
        ({"model_store_fan_out": 0}, "model_store_fan_out of one, two is '0', no number of at least 1."),
        ({"model_store_parallel": 1.5}, "model_store_parallel of one, two is '1.5', no number of at least 1."),
        ({"model_store_margin_gib": -1}, "model_store_margin_gib of one, two is '-1', no number of at least 0."),
        ({"model_store_patience": []}, "model_store_patience of one, two is '[]', no number of at least 1."),
    ],
)
def test_what_cannot_be_is_told_until_it_is_mended(variables: dict[str, Any], said: str) -> None:
    (problem,) = found(**variables)
    assert problem.startswith(said)
    assert found(**dict.fromkeys(variables)) == []
