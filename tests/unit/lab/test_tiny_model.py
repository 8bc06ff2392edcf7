"""The tiny model's files, checked against the formats' own descriptions."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from tests.lab import tiny_model


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    values = [1.0, -2.0, 0.0, 0.15625]
    assert tiny_model.bfloat16(values) == b"".join(struct.pack("<f", value)[2:] for value in values)


def test_safetensors_holds_each_tensor_where_its_header_says() -> None:
    blob = tiny_model.safetensors({"a": ([2, 1], b"1234"), "b": ([1], b"56")})
    (length,) = struct.unpack("<Q", blob[:8])
    header, data = json.loads(blob[8 : 8 + length]), blob[8 + length :]
    assert (8 + length) % 8 == 0
    assert header["a"] == {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}
    assert header["b"] == {"dtype": "BF16", "shape": [1], "data_offsets": [4, 6]}
    assert data == b"123456"


def test_the_vocabulary_has_every_byte_once_and_the_promised_size() -> None:
    tokens = tiny_model.vocabulary()
    assert len(tokens) == len(set(tokens)) == tiny_model.VOCABULARY
    assert len(set(tiny_model.byte_alphabet())) == 256
    assert tokens[ord("a")] == "a"
    assert tokens[ord(" ")] == "Ġ"  # as GPT-2 writes a blank


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_model.write(directory)
    return directory


def test_the_tensors_have_the_shapes_of_the_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    blob = (model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + length])
    assert header["lm_head.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert header["model.layers.3.mlp.down_proj.weight"]["shape"] == [
        config["hidden_size"],
        config["intermediate_size"],
    ]
    assert len(blob) == 8 + length + max(tensor["data_offsets"][1] for name, tensor in header.items() if name[0] != "_")
    for name, tensor in header.items():
        if name != "__metadata__":
            rows, columns = (*tensor["shape"], 1)[:2]
            start, end = tensor["data_offsets"]
            assert end - start == 2 * rows * columns, name


def test_the_model_is_the_same_every_time(model: Path, tmp_path: Path) -> None:
    tiny_model.write(tmp_path)
    for file in model.iterdir():
        assert (
            hashlib.sha256((tmp_path / file.name).read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
        )
