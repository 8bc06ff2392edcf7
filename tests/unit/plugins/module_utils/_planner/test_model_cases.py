"""Models as people have them on disk, from their files to a plan: each was refused or miscounted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import PlacementError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import HubOptions, read_models
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

from tests.unit.fleets import H100, Kind, host

CASES = Path(__file__).parents[3] / "fixtures" / "cases"
POOLING = json.dumps([{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
MODELOPT = json.dumps(
    {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
)


def weights(path: Path, size: int) -> None:
    """A safetensors file with so many bytes of weights, which takes no room on the disk."""
    header = json.dumps({"model.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def model(root: Path, name: str, sizes: dict[str, int] | None = None, **texts: Any) -> Path:
    """The directory of a case, with weights and other files beside its configuration."""
    root.mkdir(exist_ok=True)
    (root / "config.json").write_text((CASES / f"{name}.json").read_text(encoding="utf-8"), encoding="utf-8")
    for file, size in (sizes or {}).items():
        weights(root / file, size)
    for stem, text in texts.items():
        (root / f"{stem}.json").write_text(text, encoding="utf-8")
    return root


def planned(root: Path, gpus: int = 1, kind: Kind = H100, **wish: Any) -> dict[str, Any]:
    """The first instance of a plan for the model in a directory; it raises as plan_fleet does."""
    facts = read_models([{"name": "m", "source": str(root)}], HubOptions())
    wishes, _ = read_wishes([{"name": "m", "source": str(root), **wish}], "0.33.0")
    hosts = [Host.from_dict(host("gpu1", gpus, kind))]
    return dict(plan_fleet(wishes, hosts, sizer=Sizer(Accounts(facts, "0.33.0")))["instances"][0])


def test_a_checkpoint_that_asks_for_a_small_cache_gets_it(tmp_path: Path) -> None:
    wish: dict[str, Any] = {"context_length": 131072, "concurrency": 3}
    root = model(tmp_path / "m", "fp8-kv-hf-quant-config", {"model.safetensors": 72_000_000_000})
    with pytest.raises(PlacementError, match="3 requests of 131,072 tokens 60"):
        planned(root, 2, **wish)
    instance = planned(model(root, "fp8-kv-hf-quant-config", hf_quant_config=MODELOPT), 2, **wish)
    assert instance["budget"]["max_concurrency"] > 3


def test_of_shards_and_a_consolidated_file_one_is_counted(tmp_path: Path) -> None:
    sizes = {
        "consolidated.safetensors": 14_496_078_628,
        "model-00001-of-00003.safetensors": 4_949_453_912,
        "model-00002-of-00003.safetensors": 4_999_819_456,
        "model-00003-of-00003.safetensors": 4_546_807_920,
    }
    root = model(tmp_path / "m", "mistral-shards-and-consolidated", sizes)
    assert planned(root)["budget"]["weights"] == pytest.approx(13.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "texts", "task"),
    [
        ("qwen3-embedding", {"modules": POOLING}, "embed"),
        ("bge-m3", {}, "embed"),
        ("whisper", {}, "transcribe"),
        ("bloom", {}, "generate"),
        ("llava-class-defaults", {}, "generate"),
        ("gemma3-4b-class-defaults", {}, "generate"),
        ("pixtral", {}, "generate"),
    ],
)
def test_what_a_model_is_for(tmp_path: Path, name: str, texts: dict[str, str], task: str) -> None:
    instance = planned(model(tmp_path / "m", name, None, **texts))
    assert instance["task"] == task
    assert instance["budget"]["confidence"] in ("high", "medium", "low")


def test_an_embedding_model_without_a_pooling_module_is_told_what_it_is(tmp_path: Path) -> None:
    root = model(tmp_path / "m", "qwen3-embedding")
    assert planned(root)["task"] == "generate"
    instance = planned(root, task="embed")
    assert (instance["task"], instance["engine_args"]["runner"]) == ("embed", "pooling")


@pytest.mark.parametrize(
    ("texts", "length"),
    [
        ({}, 8194),
        ({"sentence_bert_config": '{"max_seq_length": 8192, "do_lower_case": false}'}, 8192),
        ({"tokenizer_config": '{"model_max_length": 8192}'}, 8192),
        ({"tokenizer_config": '{"model_max_length": 1000000000000000019884624838656}'}, 8194),
    ],
)
def test_other_files_say_how_long_an_input_may_be(tmp_path: Path, texts: dict[str, str], length: int) -> None:
    """With two tokens more than vLLM takes, it would not start."""
    root = model(tmp_path / "m", "bge-m3", None, **texts)
    config = json.loads((root / "config.json").read_text(encoding="utf-8"))
    (root / "config.json").write_text(json.dumps({**config, "position_embedding_type": "absolute"}), encoding="utf-8")
    assert planned(root)["engine_args"]["max-model-len"] == length


def test_heads_that_an_architecture_has_elsewhere(tmp_path: Path) -> None:
    instance = planned(model(tmp_path / "m", "dbrx"), 8)
    budget, heads = instance["budget"], 8 // instance["parallelism"]["tensor"]
    # 8 key/value heads of 128, in 40 layers and 16 bits, over the GPUs.
    assert budget["kv_cache"] * 2**30 / budget["kv_cache_tokens"] == pytest.approx(2 * 40 * heads * 128 * 2, rel=0.01)
