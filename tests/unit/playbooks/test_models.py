"""A model that is a directory has to be on every host that is to serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import Play


def test_a_model_that_is_not_there_is_told_with_host_and_remedy(
    play: Play, inventory: dict[str, Any], tmp_path: Path
) -> None:
    source = inventory["gpu_hosts"]["vars"]["vllm_models"][0]["source"]
    inventory["gpu_hosts"]["vars"]["fleet_model_facts"] = {"tiny": {"source": source, "config": {}}}

    done = play("models")

    assert done.code != 0
    problem = f"there is no directory {source} on this host"
    for host in ("gpu1", "gpu2"):
        assert f"Model path '{source}' does not exist on {host} or cannot be read ({problem}), but" in done.text
    assert "correct `source` in vllm_models" in done.text
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    assert play("models").code == 0
