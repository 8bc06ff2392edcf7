"""What vLLM itself makes of every architecture that has class defaults, and what the collection reads in the same.

The numbers are recorded by tests/tools/vllm_vectors.py.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ModelConfigError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.kv_cache import KvOptions, layer_specs
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model import CROSS, LINEAR, ModelSpec
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.task import task_of

FILE = Path(__file__).parents[3] / "fixtures" / "vllm_vectors.jsonl"
VECTORS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()[1:]]
READ = [vector for vector in VECTORS if "error" not in vector]
KINDS = {"FullAttentionSpec": "full", "MLAAttentionSpec": "mla", "SlidingWindowSpec": "sliding", "MambaSpec": LINEAR,
         "CrossAttentionSpec": CROSS, "ChunkedLocalAttentionSpec": "chunked"}  # fmt: skip
PARAMETERS = 0.045  # as the published counts of test_model_config.py

# What differs, by architecture, with the reason.
_NO_SIZES = "its class has no sizes by default, or has them by a list of layers that only real files have"
_TOWER = "its encoder or connector is not a plain transformer: parameters differ by 5 to 20 %, the cache is the same"
_DRAFT = "a draft model, which is not served by itself"
DIFFERENT: dict[str, str] = {
    **dict.fromkeys(("DeepseekV41ForCausalLM", "DeepseekV4ForCausalLM", "Moondream3ForCausalLM"), _NO_SIZES),
    **dict.fromkeys(("Cosmos3EdgeForConditionalGeneration", "NemotronHForCausalLM"), _NO_SIZES),
    "NemotronH_Omni_Reasoning_V3": _NO_SIZES,
    **dict.fromkeys(("Blip2ForConditionalGeneration", "CLIPModel", "SiglipModel"), _TOWER),
    **dict.fromkeys(("Glm4vForConditionalGeneration", "GlmOcrForConditionalGeneration"), _TOWER),
    **dict.fromkeys(("GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration"), _TOWER),
    "MuseGlimmerForConditionalGeneration": _TOWER,
    **dict.fromkeys(("MedusaModel", "MiniMaxM3MTP", "MuseGlimmerAssistantModel"), _DRAFT),
    "BertForMaskedLM": "vLLM keeps the output layer of the masked language model, which is a quarter of this small one",
    "HrmTextForCausalLM": "runs its layers several times with a cache for each pass",
    "IsaacForConditionalGeneration": "its class takes the length from another part than the files of the model do",
    "Step3p7ForConditionalGeneration": "has a class in transformers and another in vLLM under one type",
    "Zamba2ForCausalLM": "shares one attention among its layers",
}


def kept(vector: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Layers and bytes per token (of a state: per request) by kind, as vLLM has them."""
    found: dict[str, tuple[int, int]] = {}
    for kind, block, page, _, count in vector["kv"]:
        name = KINDS[kind]
        layers, size = found.get(name, (0, 0))
        found[name] = layers + count, size + count * (page if name == LINEAR else page // block)
    return found


def keeps(model: ModelSpec) -> dict[str, tuple[int, int]]:
    """The same, as the formulas have it. The CPU build keeps recurrent states in 32 bits."""
    states = [layer.state and replace(layer.state, recurrent_bytes=4) for layer in model.layers]
    layers = tuple(replace(layer, state=state) for layer, state in zip(model.layers, states, strict=True))
    options = KvOptions(max_model_len=model.max_len, mamba_align=False)
    found: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for _, spec in layer_specs(replace(model, layers=layers), options):
        found[spec.kind] += 1
        sizes[spec.kind] += spec.shape[0] if spec.kind == LINEAR else spec.page_bytes // spec.block_size
    return {kind: (found[kind], sizes[kind]) for kind in found}


def differences(vector: dict[str, Any]) -> list[str]:
    """What the collection reads otherwise than vLLM."""
    try:
        model = read_model({**vector["config"], "dtype": "bfloat16"})
    except ModelConfigError as error:
        return [str(error)]
    told = {
        "max_len": model.max_len,
        "vocabulary": model.vocabulary,
        "hidden": model.hidden,
        "pooling": task_of(vector["config"], {}) in ("embed", "score", "classify"),
    }
    found = [f"{name}: {value}, vLLM {vector[name]}" for name, value in told.items() if value != vector[name]]
    if "kv" in vector:
        if keeps(model) != kept(vector):
            found.append(f"cache: {keeps(model)}, vLLM {kept(vector)}")
        if model.weights.total_bytes / 2 != pytest.approx(vector["parameters"], rel=PARAMETERS):
            found.append(f"parameters: {model.weights.total_bytes // 2}, vLLM {vector['parameters']}")
    elif model.kv_heads != vector["kv_heads"] and vector["kv_heads"]:
        found.append(f"kv_heads: {model.kv_heads}, vLLM {vector['kv_heads']}")
    return found


@pytest.mark.parametrize("vector", READ, ids=lambda vector: vector["config"]["architectures"][0])
def test_a_model_is_what_vllm_makes_of_it(vector: dict[str, Any]) -> None:
    found = differences(vector)
    reason = DIFFERENT.get(vector["config"]["architectures"][0])
    assert bool(found) == bool(reason), found or "it does not differ any more"


def test_the_comparison_covers_the_registry() -> None:
    assert len(READ) >= 190
    assert sum("kv" in vector for vector in READ) >= 130
    assert set(DIFFERENT) <= {vector["config"]["architectures"][0] for vector in READ}
