"""What a model does, by its configuration and options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.task import TASKS, task_of

from tests.unit.fleets import MODELS


@pytest.mark.parametrize(
    ("architecture", "options", "task"),
    [
        ("LlamaForCausalLM", {}, "generate"),
        ("Qwen2_5_VLForConditionalGeneration", {}, "generate"),
        ("WhisperForConditionalGeneration", {}, "transcribe"),
        ("XLMRobertaModel", {}, "embed"),
        ("BertModel", {}, "embed"),
        ("XLMRobertaForSequenceClassification", {}, "score"),
        ("Qwen3ForCausalLM", {"convert": "embed"}, "embed"),
        ("Qwen3ForCausalLM", {"convert": "classify"}, "score"),
        ("Qwen3ForCausalLM", {"runner": "pooling"}, "embed"),
        ("Qwen3Model", {"runner": "generate"}, "generate"),
        ("SomethingThatNobodyKnows", {}, "generate"),
    ],
)
def test_the_task_of_an_architecture(architecture: str, options: dict[str, Any], task: str) -> None:
    assert task_of({"architectures": [architecture]}, options) == task
    assert task in TASKS


@pytest.mark.parametrize("config", [None, {}, {"architectures": []}, {"architectures": None}, {"architectures": "x"}])
def test_what_is_not_known_generates(config: dict[str, Any] | None) -> None:
    assert task_of(config, {}) == "generate"


def test_the_recorded_models_generate() -> None:
    for path in MODELS.glob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        assert task_of(config, {}) == "generate", path.stem
