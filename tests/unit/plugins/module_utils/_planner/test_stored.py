"""Which models engines load from the store, and what they are started with then."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launches_on
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.stored import stored_models

from tests.unit import fleets

STORE = "/srv/model-store"


def plan(**wish: Any) -> dict[str, Any]:
    return fleets.plan(
        [{"name": "llama-3.1-8b-instruct", "replicas": 2, **wish}], fleets.host("gpu1", 1), fleets.host("gpu2", 1)
    )


def started(made: dict[str, Any], store: str = STORE) -> dict[str, Any]:
    (record,) = launches_on(made, "gpu2", store)
    return record


def test_an_engine_gets_the_directory_and_no_hub() -> None:
    made = plan(revision="v1")
    without, record = started(made, ""), started(made)
    source = without["engine_args"].pop("model")
    assert without["engine_args"].pop("revision") == "v1"
    place = f"{STORE}/{source.replace('/', '--')}--v1"
    assert record["engine_args"] == {**without["engine_args"], "model": place}
    assert record["engine_args"]["served-model-name"] == "llama-3.1-8b-instruct"
    assert record["env"] == {**without["env"], "HF_HUB_OFFLINE": "1"}
    assert stored_models(made) == [{"source": source, "revision": "v1", "load_format": "auto"}]
    assert stored_models(made, "gpu2") == stored_models(made)
    assert stored_models(made, "gpu3") == []


def test_the_inventory_has_the_last_word_on_the_hub() -> None:
    assert started(plan(env={"HF_HUB_OFFLINE": "0"}))["env"]["HF_HUB_OFFLINE"] == "0"


@pytest.mark.parametrize(
    "wish",
    [
        {"extra_args": {"download-dir": "/srv/own"}},
        {"extra_args": {"load-format": "runai_streamer"}},
        {"env": {"VLLM_USE_MODELSCOPE": "True"}},
        {"env": {"HF_HUB_OFFLINE": "1"}},
    ],
)
def test_engines_that_look_for_files_in_their_own_way_keep_it(wish: dict[str, Any]) -> None:
    made = plan(**wish)
    assert stored_models(made) == []
    assert started(made) == started(made, "")


@pytest.mark.parametrize(
    "extra",
    [
        {"tokenizer": "acme/tokenizer"},
        {"hf-config-path": "acme/config"},
        {"speculative-config": {"method": "eagle3", "model": "acme/eagle"}},
        {"speculative-config": '{"model": "acme/eagle"}'},
    ],
)
def test_an_engine_whose_options_name_more_of_the_hub_may_ask_it(extra: dict[str, Any]) -> None:
    record = started(plan(extra_args=extra))
    assert "HF_HUB_OFFLINE" not in record["env"]
    assert record["engine_args"]["model"].startswith(STORE)


@pytest.mark.parametrize("extra", [{"tokenizer": "/srv/tokenizer"}, {"speculative-config": {"method": "ngram"}}])
def test_other_options_do_not_take_the_hub(extra: dict[str, Any]) -> None:
    assert started(plan(extra_args=extra))["env"]["HF_HUB_OFFLINE"] == "1"


def test_adapters_come_from_the_store_as_well() -> None:
    made = plan()
    source = made["instances"][0]["engine_args"]["model"]
    adapters = [{"name": "own", "source": "/srv/own"}, {"name": "sql", "source": "acme/sql", "revision": "v2"}]
    made = {**made, "instances": [{**entry, "adapters": adapters} for entry in made["instances"]]}
    assert [entry["source"] for entry in stored_models(made)] == sorted(["acme/sql", source])
    record = started(made)
    assert [entry["source"] for entry in record["adapters"]] == ["/srv/own", f"{STORE}/acme--sql--v2"]
    assert record["env"]["HF_HUB_OFFLINE"] == "1"


def test_a_model_that_is_a_directory_stays_one() -> None:
    made = plan(source="/srv/models/own")
    assert stored_models(made) == []
    assert started(made) == started(made, "")
