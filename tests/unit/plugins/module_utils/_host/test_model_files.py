"""What the files of a model say: in a directory, in the hub's cache, and on a hub that listens on loopback."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import model_files
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import HubOptions, ModelFilesError

from tests.unit.pretended_hub import COMMIT, CONFIG, SHARDS, safetensors, served, write_cache, write_model

OFFLINE = HubOptions()
WEIGHTS = [
    {"name": "model.embed_tokens.weight", "dtype": "BF16", "shape": [16, 4], "count": 1, "bytes": 128},
    {"name": "model.layers.*.mlp.down_proj.weight", "dtype": "BF16", "shape": [4, 8], "count": 2, "bytes": 128},
    {"name": "model.norm.weight", "dtype": "F32", "shape": [4], "count": 1, "bytes": 16},
]


def read(source: str | Path, revision: str | None = None, hub: HubOptions = OFFLINE) -> dict[str, Any]:
    return model_files.read_models([{"name": "it", "source": str(source), "revision": revision}], hub)["it"]


def refusal(source: str | Path, revision: str | None = None, hub: HubOptions = OFFLINE) -> str:
    with pytest.raises(ModelFilesError) as refused:
        read(source, revision, hub)
    return str(refused.value)


# In a directory


def test_a_directory_with_all_shards(tmp_path: Path) -> None:
    root = write_model(tmp_path / "tiny")
    assert read(root) == {
        "source": str(root),
        "revision": None,
        "path": str(root),
        "config": CONFIG,
        "generation": None,
        "embeds": False,
        "max_seq_length": None,
        "tokenizer_length": None,
        "chat_template": False,
        "tensors": WEIGHTS,
        "safetensors_bytes": 272,
        "bytes_from": "headers",
    }


def test_a_single_file_without_an_index_and_what_lies_beside_it(tmp_path: Path) -> None:
    root = write_model(tmp_path / "tiny")
    for name in [*SHARDS, "model.safetensors.index.json"]:
        (root / name).unlink()
    (root / "anything.safetensors").write_bytes(safetensors({"a": ("F32", [2])}))
    assert read(root)["safetensors_bytes"] == 8
    (root / "model.safetensors").write_bytes(safetensors({"b": ("F8_E4M3", [3])}))
    assert read(root)["tensors"] == [{"name": "b", "dtype": "F8_E4M3", "shape": [3], "count": 1, "bytes": 3}]


@pytest.mark.parametrize(("total", "expected"), [(272, (272, "index")), (None, (None, "none"))])
def test_a_missing_shard_leaves_what_the_index_says(
    tmp_path: Path, total: int | None, expected: tuple[int | None, str]
) -> None:
    root = write_model(tmp_path / "tiny", total=total)
    shard = root / next(iter(SHARDS))
    shard.unlink()
    shard.symlink_to("../../blobs/not-downloaded")  # as the hub's cache has it
    facts = read(root)
    assert (facts["safetensors_bytes"], facts["bytes_from"]) == expected
    assert facts["tensors"] == []


def test_pytorch_files_are_sized_and_nothing_at_all_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert read(tmp_path)["bytes_from"] == "none"
    for name in ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "training_args.bin"):
        (tmp_path / name).write_bytes(bytes(1000))
    facts = read(tmp_path)
    assert (facts["safetensors_bytes"], facts["bytes_from"]) == (2000, "files")


def test_of_two_formats_one_is_loaded(tmp_path: Path) -> None:
    """VLLM prefers Mistral's, if there is no list of shards: what is counted is what it loads."""
    root = write_model(tmp_path / "tiny")
    (root / "model.safetensors.index.json").unlink()
    (root / "consolidated.safetensors").write_bytes(safetensors({"tok_embeddings.weight": ("BF16", [16, 4])}))
    facts = read(root)
    assert (facts["safetensors_bytes"], facts["bytes_from"]) == (128, "headers")
    assert [tensor["name"] for tensor in facts["tensors"]] == ["tok_embeddings.weight"]


def test_a_model_in_mistrals_own_format_alone(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"dim": 8, "n_layers": 2}')
    (tmp_path / "consolidated.safetensors").write_bytes(safetensors({"a": ("BF16", [16])}))
    facts = read(tmp_path)
    assert (facts["config"], facts["safetensors_bytes"]) == ({"dim": 8, "n_layers": 2}, 32)


def test_what_modelopt_wrote_into_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"kv_cache_quant_algo": "FP8"}}')
    said = {"quantization": {"kv_cache_quant_algo": "FP8"}}
    assert read(tmp_path)["config"] == {"model_type": "llama", "quantization_config": said}
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    assert read(tmp_path)["config"]["quantization_config"] == {"quant_method": "fp8"}


def test_pickled_weights_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("consolidated.00.pt", "optimizer.pt"):
        (tmp_path / name).write_bytes(bytes(500))
    assert read(tmp_path)["safetensors_bytes"] == 500
    (tmp_path / "model.bin").write_bytes(bytes(700))
    assert read(tmp_path)["safetensors_bytes"] == 700


def test_generation_and_chat_template(tmp_path: Path) -> None:
    root = write_model(tmp_path / "tiny")
    (root / "generation_config.json").write_text('{"temperature": 0.6}')
    (root / "tokenizer_config.json").write_text('{"chat_template": null}')
    assert read(root)["generation"] == {"temperature": 0.6}
    assert not read(root)["chat_template"]
    (root / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert read(root)["chat_template"]
    (root / "tokenizer_config.json").unlink()
    (root / "chat_template.jinja").write_text("{{ messages }}")
    assert read(root)["chat_template"]


@pytest.mark.parametrize(
    ("kinds", "embeds"),
    [
        (["models.Transformer", "models.Pooling", "models.Normalize"], True),
        (["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"], True),
        (["models.Transformer", "models.Dense"], False),
    ],
)
def test_a_pooling_module_of_sentence_transformers(tmp_path: Path, kinds: list[str], embeds: bool) -> None:
    root = write_model(tmp_path / "tiny")
    (root / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.{kind}"} for kind in kinds]))
    assert read(root)["embeds"] is embeds


@pytest.mark.parametrize("content", ["{", "[1]", '[{"path": ""}]'])
def test_damaged_modules_are_named(tmp_path: Path, content: str) -> None:
    root = write_model(tmp_path / "tiny")
    (root / "modules.json").write_text(content)
    assert refusal(root).startswith(f"it: modules.json of {root} is no list of modules: ")


def test_what_json_does_not_know_becomes_text(tmp_path: Path) -> None:
    root = write_model(tmp_path / "mamba", config='{"time_step_limit": [0.0, Infinity]}')
    assert read(root)["config"] == {"time_step_limit": [0.0, "Infinity"]}


def test_the_tensors_of_any_model_have_room_in_a_fact(tmp_path: Path) -> None:
    names = {f"blocks_{block}_{'x' * 40}": ("F32", [1 + block % 2]) for block in range(3000)}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors(names))
    facts = read(tmp_path)
    assert len(json.dumps(facts["tensors"])) < 64 * 1024
    assert facts["tensors"][-1]["name"] == "*"
    assert sum(tensor["count"] for tensor in facts["tensors"]) == 3000
    assert sum(tensor["bytes"] for tensor in facts["tensors"]) == facts["safetensors_bytes"] == 18000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "announces a header of 0 bytes and has 0 in all"),
        (b"\x02\0\0\0", "has 4 in all"),
        ((2**63).to_bytes(8, "little") + b"{}", "announces a header of 9223372036854775808 bytes"),
        ((3).to_bytes(8, "little") + b"{}", "announces a header of 3 bytes and has 10 in all"),
        ((4).to_bytes(8, "little") + b"nope", "damaged header .JSONDecodeError"),
        ((4).to_bytes(8, "little") + b"{\xff} ", "damaged header .UnicodeDecodeError"),
        ((2).to_bytes(8, "little") + b"[]", "damaged header .TypeError"),
        ((8).to_bytes(8, "little") + b'{"a":{}}', "damaged header .KeyError.'data_offsets'"),
        ((22).to_bytes(8, "little") + b'{"a":{"data_offsets":5', "damaged header"),
        (safetensors({"a": ("F32", [4])}).replace(b"[0, 16]", b"[16, 0]"), "a lies from byte 16 to 0"),
        (safetensors({"a": ("F32", [4])})[:-1], "is cut off at [0-9]+ of [0-9]+ bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "pointer of Git LFS.*git lfs pull"),
    ],
)
def test_damaged_weights_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesError, match=says) as refused:
        read(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"), [("{", "config.json of .* is not JSON"), ("[]", "config.json of .* is not a JSON object")]
)
def test_a_damaged_configuration_is_named(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(ModelFilesError, match=says):
        read(write_model(tmp_path / "tiny", config=content))


def test_a_damaged_index_is_no_crash(tmp_path: Path) -> None:
    root = write_model(tmp_path / "tiny")
    (root / "model.safetensors.index.json").write_text('{"weight_map": [], "metadata": "?"}')
    assert read(root)["bytes_from"] == "none"


def adapter_facts(root: Path) -> dict[str, Any]:
    return model_files.read_models([{"name": "it", "source": str(root), "kind": "adapter"}], OFFLINE)["it"]


def test_an_adapter_tells_its_largest_rank_and_its_base(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 8, "rank_pattern": {"q_proj": 32}, "base_model_name_or_path": "acme/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = {"rank": 32, "base": "acme/base"}
    assert adapter_facts(tmp_path) == {"source": str(tmp_path), "path": str(tmp_path), "adapter": adapter}
    (tmp_path / "adapter_config.json").write_text('{"r": "?"}')
    assert adapter_facts(tmp_path)["adapter"] == {"rank": None, "base": None}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "has no adapter_config.json"),
        ('{"peft_type": "IA3"}', "is an adapter of the kind IA3"),
        ("[", "not JSON"),
    ],
)
def test_what_is_no_adapter_is_named(tmp_path: Path, content: str | None, says: str) -> None:
    if content:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelFilesError, match=says):
        adapter_facts(tmp_path)


def test_adapters_are_read_with_the_models() -> None:
    models = [
        {"name": "a", "source": "acme/a", "lora": [{"name": "sql", "source": "/sql"}, "?", {"name": "x"}]},
        {"name": "b", "source": "/b", "lora": "?"},
    ]
    adapter = {"name": "sql", "source": "/sql", "kind": "adapter"}
    assert model_files.sources(models, "directory") == [{"name": "b", "source": "/b"}, adapter]


def test_what_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == f"it: there is no directory {tmp_path}/gone on this host."
    assert "has no config.json" in refusal(tmp_path)
    assert "neither an absolute path nor the id" in refusal("./models/tiny")
    assert "neither an absolute path nor the id" in refusal("acme/../tiny")


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    models = [{"name": name, "source": f"{tmp_path}/{name}", "revision": None} for name in ("a", "b")]
    with pytest.raises(ModelFilesError, match=r"a: there is no .*\nb: there is no"):
        model_files.read_models(models, HubOptions())


def test_directories_and_ids_are_told_apart_and_wrong_entries_passed_over() -> None:
    first = {"name": "a", "source": "/srv/a"}
    second = {"name": "b", "source": "owner/b", "revision": "abc"}
    models = [first | {"replicas": 2}, second, {"name": "c"}, "d"]
    assert model_files.sources(models) == [first, second]
    assert model_files.sources(models, "directory") == [first]
    assert model_files.sources(models, "hub") == [second]


# In the hub's cache


@pytest.mark.parametrize("revision", [None, "main", "pr/1", COMMIT])
def test_the_cache_knows_branches_and_commits(tmp_path: Path, revision: str | None) -> None:
    snapshot = write_cache(tmp_path)
    facts = read("acme/tiny", revision, HubOptions(str(tmp_path)))
    assert facts["source"] == "acme/tiny"
    assert facts["revision"] == COMMIT
    assert facts["path"] == str(snapshot)
    assert facts["tensors"] == WEIGHTS


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    write_cache(tmp_path)
    monkeypatch.setenv(variable, str(tmp_path if variable == "HF_HOME" else tmp_path / "hub"))
    assert read("acme/tiny")["bytes_from"] == "headers"


def test_what_is_not_in_the_cache_says_where_it_was_looked_for(tmp_path: Path) -> None:
    write_cache(tmp_path)
    hub = HubOptions(str(tmp_path))
    assert f"there is no {tmp_path}/hub/models--acme--other" in refusal("acme/other", hub=hub)
    message = refusal("acme/tiny", "v2", hub=hub)
    assert "models--acme--tiny has neither refs/v2 nor snapshots/v2/config.json" in message
    assert "hf_home" in message
    assert "online: true" in message
    assert "not a revision" in refusal("acme/tiny", "../../..", hub=hub)
    assert "not a revision" in refusal("acme/tiny", "/etc/hostname", hub=hub)


# On the hub


def test_the_hub_is_asked_for_small_files_and_headers_only(tmp_path: Path) -> None:
    root = write_model(tmp_path / "tiny")
    home = tmp_path / "home"
    bearer = "hf_abc"
    with served(root) as (endpoint, requests):
        facts = read("acme/tiny", hub=HubOptions(str(home), online=True, endpoint=endpoint, token=bearer))
    assert (facts["path"], facts["revision"]) == (None, COMMIT)
    assert (facts["tensors"], facts["bytes_from"]) == (WEIGHTS, "headers")
    assert facts["config"] == CONFIG
    assert not home.exists()
    assert all(wanted for path, wanted, _ in requests if path.endswith(".safetensors"))
    assert {token for *_, token in requests} == {f"Bearer {bearer}"}


def test_the_cache_comes_first_unless_it_knows_no_weights(tmp_path: Path) -> None:
    root = write_model(tmp_path / "tiny")
    snapshot = write_cache(tmp_path)
    with served(root) as (endpoint, requests):
        hub = HubOptions(str(tmp_path), online=True, endpoint=endpoint)
        assert read("acme/tiny", hub=hub)["path"] == str(snapshot)
        assert requests == []
        (snapshot / "model.safetensors.index.json").unlink()
        for name in SHARDS:
            (snapshot / name).unlink()
        assert read("acme/tiny", hub=hub)["path"] is None


def test_what_the_hub_refuses_is_said_with_its_address(tmp_path: Path) -> None:
    with served(tmp_path) as (endpoint, _):
        hub = HubOptions(str(tmp_path), online=True, endpoint=endpoint)
        message = refusal("acme/other", hub=hub)
        assert message.startswith(f"it: acme/other cannot be read from {endpoint}: ")
    # The hub is gone now.
    assert endpoint in refusal("acme/tiny", hub=hub)


def test_without_the_library_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no property of the model, so there is no plan without it either."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for required in (True, False):
        with pytest.raises(ModelFilesError) as refused:
            model_files.read_models(
                [{"name": "it", "source": "acme/tiny"}], HubOptions(str(tmp_path), online=True), required=required
            )
        assert "needs the Python package huggingface_hub" in str(refused.value)
        assert f"{sys.executable} -m pip install huggingface_hub" in str(refused.value)
    write_cache(tmp_path)
    assert read("acme/tiny", hub=HubOptions(str(tmp_path), online=True))["bytes_from"] == "headers"


def test_it_brings_nothing_of_the_collection_to_every_host() -> None:
    """The preflight sends it along, and a host compiles whatever it imports."""
    assert model_files.__file__
    tree = ast.parse(Path(model_files.__file__).read_text())
    assert [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []
