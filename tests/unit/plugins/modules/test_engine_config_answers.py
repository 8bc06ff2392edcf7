"""What the module engine_config tells of instances that answer at once, so that nobody has to wait for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.scripted_engine import Engine

from . import test_engine_config as host
from .test_engine_config import TINY, Configure, start

configure = host.configure

SYSTEMCTL = f"""#!/bin/sh
case "$*" in
    *Monotonic*) echo 60000000;;
    *LoadState*)
        state=failed; [ -e "$RUNNING/$2" ] && state=active
        printf 'LoadState=loaded\\nActiveState=%s\\nResult=success\\nNRestarts=0\\n' $state;;
    *) {host.SYSTEMCTL.partition("!/bin/sh")[2]}
esac
"""
JOURNALCTL = "#!/bin/sh\necho 'Directly load AOT compilation from path /var/lib/vllm/cache'\n"


@pytest.fixture
def tiny(configure: Configure, engine: Engine, tmp_path: Path) -> dict[str, Any]:
    """An instance of this host that runs, and is as it shall be."""
    for name, text in {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    engine.key = "hidden"
    instance = {**TINY, "endpoint": {"host": "gpu1", "address": "127.0.0.1", "port": engine.server_port}}
    assert configure(instance, host="gpu1")["answers"] == []  # it has to start
    start(tmp_path, "tiny-1")
    return instance


def test_an_instance_that_answers_is_asked_in_the_same_look(
    configure: Configure, engine: Engine, tiny: dict[str, Any]
) -> None:
    result = configure(tiny, host="gpu1", _ansible_check_mode=True)
    assert not result["changed"]
    (answer,) = result["answers"]
    assert (answer["item"], answer["stage"]) == ({"id": "tiny-1", "node": {"rank": 0}}, "answer")
    assert (answer["effective"]["num_gpu_blocks"], answer["effective"]["boot"]) == (256, "warm")
    assert engine.requests[0]["prompt"] == "Say hello."
    assert "hidden" not in str(result)


def test_one_that_does_not_is_left_to_who_waits(
    configure: Configure, engine: Engine, tiny: dict[str, Any], tmp_path: Path
) -> None:
    other = {**tiny, "id": "tiny-2", "endpoint": {**tiny["endpoint"], "host": "gpu2"}}  # of which this is a node
    assert configure(tiny)["answers"] == [], "nobody has said which host this is"
    engine.health = 503
    assert configure(tiny, host="gpu1")["answers"] == []
    engine.health = 200
    assert configure(tiny, other, host="gpu1")["answers"] == [], "the other one has to start"
    engine.requests.clear()
    adapted = {**tiny, "engine_args": {"port": 8000, "enable-lora": True}}
    assert configure(adapted, host="gpu1")["restart"] == ["tiny-1"]
    start(tmp_path, "tiny-1")
    result = configure(adapted, host="gpu1")
    assert (result["changed"], result["restart"], result["answers"]) == (False, [], []), "it may have some to load"
    assert engine.requests == []


def test_a_node_without_an_api_is_asked_for_what_its_keeper_says(
    configure: Configure, engine: Engine, tiny: dict[str, Any], tmp_path: Path
) -> None:
    worker = {**tiny, "endpoint": {**tiny["endpoint"], "host": "gpu2"}}
    metrics = tmp_path / "run/tiny-1/keeper.prom"
    metrics.write_text('gpuhosts_keeper_state{instance_id="tiny-1",state="starting"} 1\n')
    assert configure(worker, host="gpu1")["answers"] == []
    metrics.write_text('gpuhosts_keeper_state{instance_id="tiny-1",state="serving"} 1\n')
    assert [answer["stage"] for answer in configure(worker, host="gpu1")["answers"]] == ["keeper"]
    assert engine.requests == []


def test_a_unit_that_has_failed_answers_nothing(configure: Configure, tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "running/vllm@tiny-1.service").unlink()
    assert configure(tiny, host="gpu1")["answers"] == []
