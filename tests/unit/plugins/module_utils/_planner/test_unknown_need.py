"""A model of which nobody can say how many GPUs it needs is refused, and each way out that the refusal names is one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import HubOptions, read_models
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import Host, plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

from tests.unit.fleets import H100, MODELS, host
from tests.unit.pretended_hub import served, write_cache, write_model

# As large as the files of the pretended hub.
TINY = json.dumps(
    {
        "model_type": "llama",
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_hidden_layers": 2,
        "vocab_size": 16,
    }
)
LLAMA = json.loads((MODELS / "llama-3.3-70b-instruct.json").read_text(encoding="utf-8"))["config"]


def plan(model: dict[str, Any], facts: dict[str, Any], version: str = "0.33.0", gpus: int = 8) -> dict[str, Any]:
    wishes, _ = read_wishes([model | {"name": "llama"}], version)
    return plan_fleet(wishes, [Host.from_dict(host("gpu1", gpus, H100))], sizer=Sizer(Accounts(facts, version)))


def refused(model: dict[str, Any], facts: dict[str, Any], version: str = "0.33.0") -> str:
    with pytest.raises(PlacementError) as caught:
        plan(model, facts, version)
    return str(caught.value)


def tensor_sizes(made: dict[str, Any]) -> set[int]:
    return {instance["parallelism"]["tensor"] for instance in made["instances"]}


def test_the_hub_cache_and_other_ways_for_a_model_of_the_hub(tmp_path: Path) -> None:
    model = {"source": "acme/tiny"}
    known = read_models([model | {"name": "llama"}], HubOptions(str(tmp_path)), required=False)
    root = tmp_path / "hub/models--acme--tiny"
    assert refused(model, known) == (
        "llama: how many GPUs it needs cannot be computed, because acme/tiny (revision main) is not on this host: "
        f"there is no {root}. Download it into the hub cache of this machine (hf download acme/tiny; fleet_hf_home "
        "names another cache), set fleet_hub_online: true, or write the content of its config.json below "
        "fleet_model_facts as {llama: {config: ...}}. Or state vllm_models[0].parallelism, such as {tensor: 2}; then "
        "nobody checks the memory."
    )
    assert tensor_sizes(plan(model, {"llama": {"config": LLAMA}})) == {4}
    stated = plan(model | {"parallelism": {"tensor": 2}}, known)
    assert tensor_sizes(stated) == {2}
    assert "whether it fits is not checked" in stated["warnings"][0]
    with served(write_model(tmp_path / "on-the-hub", config=TINY)) as (endpoint, _):
        online = HubOptions(str(tmp_path), online=True, endpoint=endpoint)
        assert plan(model, read_models([model | {"name": "llama"}], online, required=False))["instances"]
    write_cache(tmp_path, TINY)
    known = read_models([model | {"name": "llama"}], HubOptions(str(tmp_path)), required=False)
    assert plan(model, known)["instances"]


def test_the_directory_for_a_model_in_one(tmp_path: Path) -> None:
    model = {"name": "llama", "source": str(tmp_path / "llama")}
    known = read_models([model], HubOptions(), required=False)
    assert f"Put the model into {tmp_path}/llama on a host of gpu_hosts, or write" in refused(model, known)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama/config.json").write_text(json.dumps(LLAMA))
    assert tensor_sizes(plan(model, read_models([model], HubOptions(), required=False))) == {4}


@pytest.mark.parametrize(
    ("facts", "version", "reason"),
    [
        ({"config": LLAMA}, "0.99.0", "vLLM 0.99.0 is newer than"),
        ({"config": {}}, "0.33.0", "config"),
    ],
)
def test_what_was_read_and_is_not_understood_needs_a_stated_shape(
    facts: dict[str, Any], version: str, reason: str
) -> None:
    known = {"llama": facts}
    message = refused({"source": "acme/tiny"}, known, version)
    assert reason in message
    assert "fleet_hub_online" not in message
    assert " State vllm_models[0].parallelism, such as {tensor: 2}" in message
    assert tensor_sizes(plan({"source": "acme/tiny", "parallelism": {"tensor": 2}}, known, version)) == {2}


def test_where_hosts_have_one_gpu_each_there_is_nothing_to_choose_for_a_model_that_was_read() -> None:
    made = plan({"source": "acme/tiny"}, {"llama": {"config": LLAMA}}, "0.99.0", gpus=1)
    assert tensor_sizes(made) == {1}
    assert "whether it fits is not checked" in made["warnings"][0]
    with pytest.raises(PlacementError, match="because its files were not read"):
        plan({"source": "acme/tiny"}, {}, gpus=1)


@pytest.mark.parametrize("size", [-1_000_000_000_000, 0, 1, 10**15])
def test_a_size_that_the_configuration_contradicts_is_refused(size: int) -> None:
    message = refused({"source": "acme/tiny"}, {"llama": {"config": LLAMA, "safetensors_bytes": size}})
    assert f"its files are said to have {size} bytes, but by its configuration they have about 141107" in message
    for right in (141_107_412_992, 2 * 141_107_412_992, 40_000_000_000):
        assert plan({"source": "acme/tiny"}, {"llama": {"config": LLAMA, "safetensors_bytes": right}})["instances"]


@pytest.mark.parametrize("layers", [10**5, 10**7, 10**30])
def test_layers_without_number_end_at_once(layers: int) -> None:
    config = LLAMA | {"num_hidden_layers": layers}
    assert f"it has {layers} layers, which no model has" in refused({"source": "a/b"}, {"llama": {"config": config}})


@pytest.mark.parametrize("name", sorted(LLAMA))
def test_a_field_of_the_configuration_that_is_nonsense_is_no_raw_error(name: str) -> None:
    """Whatever stands there is sized or refused, at once."""
    for value in (None, -1, 0, 10**7, 10**30, 1.5, float("inf"), float("nan"), "x", [], [None], {}, {"a": 1}, True):
        known = {"llama": {"config": LLAMA | {name: value}}}
        with contextlib.suppress(PlacementError):
            assert plan({"source": "a/b"}, known)["instances"]
