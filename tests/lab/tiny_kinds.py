"""What the tiny Llama is besides: an adapter of it that answers otherwise, and a model for embeddings.

Neither needs torch, and both are always the same bytes. The adapter is in PEFT's layout; the model has the weights of
the tiny Llama and, as models of sentence-transformers have it, a modules.json with a pooling module.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from . import tiny_model
from .tiny_model import HIDDEN, INTERMEDIATE, LAYERS, bfloat16, safetensors

RANK = 8
ADAPTER = tiny_model.DIRECTORY.with_name("tiny-adapter")
EMBEDDER = tiny_model.DIRECTORY.with_name("tiny-embedder")

_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def prepare() -> None:
    """Write both beside the tiny Llama, which has to be there."""
    for directory in (ADAPTER, EMBEDDER):
        directory.mkdir(parents=True, exist_ok=True)
    write_adapter(ADAPTER)
    write_embedder(EMBEDDER, tiny_model.DIRECTORY)


def write_adapter(directory: Path) -> None:
    """Write an adapter of the last matrix of every layer into an existing directory."""
    numbers = random.Random(3141)
    tensors = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        for part, rows, columns in (("A", RANK, INTERMEDIATE), ("B", HIDDEN, RANK)):
            values = [numbers.uniform(-1, 1) for _ in range(rows * columns)]
            if part == "B":
                values[:columns] = [0.0] * columns  # the constant that makes it speak in words stays one
            tensors[f"{name}.lora_{part}.weight"] = ([rows, columns], bfloat16(values))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny-llama",
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["down_proj"],
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (directory / "adapter_model.safetensors").write_bytes(safetensors(tensors))


def write_embedder(directory: Path, model: Path) -> None:
    """Write the model for embeddings, made of the tiny Llama in ``model``, into an existing directory."""
    for file in model.iterdir():
        shutil.copy(file, directory)
    (directory / "modules.json").write_text(json.dumps(_MODULES, indent=1) + "\n")
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_lasttoken": True}
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=1) + "\n")
