"""What a model does, by its configuration and options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.task import TASKS, options_for, task_of

from tests.unit.fleets import MODELS

ONE = {"id2label": {"0": "LABEL_0"}}
SOFTMAX = {"method": "from_2_way_softmax", "classifier_from_token": ["no", "yes"], "num_labels": 2}


@pytest.mark.parametrize(
    ("architecture", "config", "options", "task"),
    [
        ("LlamaForCausalLM", {}, {}, "generate"),
        ("Qwen2_5_VLForConditionalGeneration", {}, {}, "generate"),
        ("WhisperForConditionalGeneration", {}, {}, "transcribe"),
        ("XLMRobertaModel", {}, {}, "embed"),
        ("BertModel", {}, {}, "embed"),
        ("BertForMaskedLM", {}, {}, "embed"),
        ("XLMRobertaForSequenceClassification", ONE, {}, "score"),
        ("XLMRobertaForSequenceClassification", {"num_labels": 3}, {}, "classify"),
        ("XLMRobertaForSequenceClassification", {}, {}, "classify"),  # transformers gives it two labels
        ("BertForTokenClassification", ONE, {}, "classify"),
        ("Qwen3ForSequenceClassification", SOFTMAX, {}, "score"),
        ("Qwen3ForSequenceClassification", {**SOFTMAX, "method": "no_post_processing"}, {}, "classify"),
        ("JinaVLForRanking", {}, {}, "score"),
        ("ColQwen3", {}, {}, "score"),
        ("Qwen2ForRewardModel", ONE, {}, "classify"),
        ("Qwen3ForCausalLM", {}, {"convert": "embed"}, "embed"),
        ("Qwen3ForCausalLM", ONE, {"convert": "classify"}, "score"),
        ("Qwen3ForCausalLM", {}, {"runner": "pooling"}, "embed"),
        ("Qwen3Model", {}, {"runner": "generate"}, "generate"),
        ("SomethingThatNobodyKnows", {}, {}, "generate"),
        ("SomethingThatNobodyKnows", {}, {"runner": "pooling"}, "embed"),
    ],
)
def test_the_task_of_an_architecture(
    architecture: str, config: dict[str, Any], options: dict[str, Any], task: str
) -> None:
    assert task_of({"architectures": [architecture], **config}, options) == task
    assert task in TASKS


def test_a_language_model_with_a_pooling_module_embeds() -> None:
    config = {"architectures": ["Qwen3ForCausalLM"]}
    assert task_of(config, {}, embeds=True) == "embed"
    assert task_of(config, {"runner": "generate"}, embeds=True) == "generate"


def test_what_is_stated_counts() -> None:
    assert task_of({"architectures": ["BertModel"]}, {}, stated="score") == "score"


@pytest.mark.parametrize(
    ("stated", "by_itself", "options"),
    [
        (None, "generate", {}),
        ("embed", "embed", {}),
        ("embed", "generate", {"runner": "pooling", "convert": "embed"}),
        ("score", "generate", {"runner": "pooling", "convert": "classify"}),
        ("generate", "embed", {"runner": "generate"}),
    ],
)
def test_vllm_is_told_where_it_would_do_something_else(
    stated: str | None, by_itself: str, options: dict[str, str]
) -> None:
    assert options_for(stated, by_itself) == options


@pytest.mark.parametrize("config", [None, {}, {"architectures": []}, {"architectures": None}, {"architectures": "x"}])
def test_what_is_not_known_generates(config: dict[str, Any] | None) -> None:
    assert task_of(config, {}) == "generate"


def test_the_recorded_models_generate() -> None:
    for path in MODELS.glob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        assert task_of(config, {}) == "generate", path.stem
