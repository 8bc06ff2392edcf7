"""Which files of a model are fetched, and what the hub's refusals lead to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ModelStoreError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import hub as hub_module
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.hub import (
    LOAD_FORMATS,
    Repository,
    endpoint_of,
    files_of,
    manifest_from_hub,
)

from tests import hub

TEXTS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer.model.v3", "tekken.json", "LICENSE"]
NEVER = [".gitattributes", "README.md", "figures/curve.png", "model.gguf", "onnx/model.onnx", "onnx/model.onnx_data"]
SHARDS = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
INDEX = "model.safetensors.index.json"


def chosen(names: list[str], load_format: str) -> set[str]:
    """The weights among the files, and their index."""
    found = files_of([*TEXTS, *NEVER, *names], load_format, lambda _: SHARDS)
    assert set(TEXTS) <= set(found)
    assert found == sorted(found)
    return set(found) - set(TEXTS)


MISTRAL = ["model.safetensors", "consolidated.safetensors", "params.json"]


@pytest.mark.parametrize(
    ("names", "load_format", "left_out"),
    [
        (["model.safetensors", "pytorch_model.bin", "tf_model.h5"], "auto", ["pytorch_model.bin", "tf_model.h5"]),
        (["pytorch_model.bin", "training_args.bin", "optimizer.pt"], "auto", ["training_args.bin", "optimizer.pt"]),
        (["pytorch_model.bin", "pytorch_model.bin.index.json"], "auto", ["pytorch_model.bin.index.json"]),
        (["weights.pt", "scheduler.pt"], "auto", ["scheduler.pt"]),
        (["model.safetensors", "pytorch_model.bin"], "npcache", ["model.safetensors"]),
        (["model.safetensors", "weights.pt"], "pt", ["model.safetensors"]),
        ([*SHARDS, INDEX, "model.safetensors"], "auto", ["model.safetensors"]),
        (MISTRAL, "auto", ["model.safetensors"]),
        (MISTRAL, "mistral", ["model.safetensors"]),
        (MISTRAL, "hf", []),
        (["model.safetensors", "original/consolidated.safetensors"], "auto", ["original/consolidated.safetensors"]),
        (["model.safetensors", "checkpoint-5/model.safetensors"], "auto", ["checkpoint-5/model.safetensors"]),
        (["model.safetensors", "2_Dense/model.safetensors", "2_Dense/config.json"], "auto", []),
        (["pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"], "auto", []),
        (["adapter_model.safetensors", "adapter_config.json"], "auto", []),
        (["model.safetensors", "modeling_acme.py"], "auto", []),
    ],
)
def test_only_what_vllm_loads_comes(names: list[str], load_format: str, left_out: list[str]) -> None:
    assert chosen(names, load_format) == set(names) - set(left_out)


def test_every_load_format_prefers_something() -> None:
    assert all(LOAD_FORMATS.values())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    model = tmp_path / "acme" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    for name in SHARDS:
        (model / name).write_bytes(bytes(hub.LARGE))
    (model / "model.safetensors").write_bytes(bytes(hub.LARGE))
    (model / INDEX).write_text(json.dumps({"weight_map": dict(zip("ab", sorted(SHARDS), strict=True))}))
    return tmp_path


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with hub.served(root) as address:
        yield address


def test_the_list_has_sizes_and_checksums(url: str) -> None:
    listed = manifest_from_hub(Repository("acme/tiny", "v1", url), "auto")
    assert (listed["source"], listed["revision"], listed["commit"]) == ("acme/tiny", "v1", hub.COMMIT)
    assert [(file["path"], len(file["digest"])) for file in listed["files"]] == [
        ("config.json", 40),  # of git
        *((name, 64) for name in sorted(SHARDS)),
        (INDEX, 40),
    ]
    assert {file["size"] for file in listed["files"][1:3]} == {hub.LARGE}


@pytest.mark.parametrize(
    ("source", "revision", "token", "said"),
    [
        ("acme/tiny", "v2", "hf_right", "has acme/tiny, but no revision 'v2'. Correct it in vllm_models."),
        ("acme/none", "main", "hf_right", "has no acme/none at main that may be seen. Correct source in vllm_models"),
        ("acme/tiny", "main", "", "it takes a token, and vllm_hf_token is empty. Set vllm_hf_token to one that may."),
        ("acme/tiny", "main", "hf_wrong", "the token in vllm_hf_token may not read it. Set vllm_hf_token to one"),
    ],
)
def test_a_refusal_says_what_to_do(root: Path, url: str, source: str, revision: str, token: str, said: str) -> None:
    (root / "faults.json").write_text(json.dumps({"asks_for": "hf_right"}))
    with pytest.raises(ModelStoreError) as caught:
        manifest_from_hub(Repository(source, revision, url, token), "auto")
    assert said in str(caught.value)
    assert "hf_wrong" not in str(caught.value)


def test_a_shard_that_the_index_names_and_nobody_has(root: Path, url: str) -> None:
    (root / "acme/tiny" / min(SHARDS)).unlink()
    with pytest.raises(ModelStoreError, match=r"its index names model-00001-of-00002\.safetensors, which it has not"):
        manifest_from_hub(Repository("acme/tiny", "main", url), "auto")


def test_a_model_without_weights_that_can_be_loaded(root: Path, url: str) -> None:
    for path in (root / "acme/tiny").glob("model*"):
        path.unlink()
    (root / "acme/tiny/tiny-q4.gguf").write_bytes(bytes(hub.LARGE))
    with pytest.raises(
        ModelStoreError, match=r"acme/tiny at main has no weights that vLLM opens with load-format auto\."
    ):
        manifest_from_hub(Repository("acme/tiny", "main", url), "auto")


FILE = {"size": 1, "blobId": "0" * 40}


@pytest.mark.parametrize("name", ["../w.pt", "/etc/w.pt", "a//w.pt", ".complete", "a/../../w.pt", "a\nb.pt", "\0.pt"])
def test_a_name_that_would_lie_elsewhere_is_not_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it comes among the files that are wanted."""
    index = {"weight_map": {"a": name}}
    listed = {"sha": "c", "siblings": [{"rfilename": known, **FILE} for known in (name, INDEX, "model.safetensors")]}
    monkeypatch.setattr(hub_module, "_json", lambda _, path, *__: index if path.endswith(INDEX) else listed)
    with pytest.raises(ModelStoreError, match=r"has a file .*, which would lie elsewhere\. It is not taken"):
        manifest_from_hub(Repository("acme/tiny", "main", "http://hub"), "auto")


@pytest.mark.parametrize(
    "answer",
    [
        {"siblings": "abc"},
        {"siblings": [1]},
        {"siblings": [{"name": "a"}]},
        {"siblings": 7},
        {"siblings": [{"rfilename": "w.pt", "lfs": "none"}]},
        {"siblings": [{"rfilename": ["w.pt"]}]},
    ],
)
def test_an_answer_of_another_kind_is_told(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_json", lambda *_: answer)
    with pytest.raises(ModelStoreError, match="http://hub answers for acme/tiny at main, but not as the hub does"):
        manifest_from_hub(Repository("acme/tiny", "main", "http://hub"), "auto")


def test_a_server_that_speaks_something_else() -> None:
    def speak(server: socket.socket) -> None:
        with server.accept()[0] as caller:
            caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=speak, args=(server,)).start()
        with pytest.raises(ModelStoreError, match="does not answer for acme/tiny at main"):
            manifest_from_hub(Repository("acme/tiny", "main", f"http://127.0.0.1:{server.getsockname()[1]}"), "auto")


def test_a_hub_that_does_not_answer() -> None:
    with pytest.raises(ModelStoreError, match="HTTPS_PROXY in vllm_environment"):
        manifest_from_hub(Repository("acme/tiny", "main", "http://127.0.0.1:9"), "auto")


def test_the_hub_is_named_by_the_option_then_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert endpoint_of("") == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert endpoint_of(None) == "https://mirror.example"
    assert endpoint_of("http://other.example") == "http://other.example"
