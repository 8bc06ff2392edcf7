"""What a model does, and so what its readiness asks of it; pure, private to the collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["TASKS", "task_of"]

TASKS = ("generate", "embed", "score", "transcribe")

# vLLM's own table of endings (config/model.py, _SUFFIX_TO_DEFAULTS), the first that fits counts. It calls the tasks of
# pooling models embed and classify; a classifier answers /score.
_ENDINGS = (
    ("ForCausalLM", "generate"),
    ("ForConditionalGeneration", "generate"),
    ("ChatModel", "generate"),
    ("LMHeadModel", "generate"),
    ("ForTextEncoding", "embed"),
    ("EmbeddingModel", "embed"),
    ("ForSequenceClassification", "score"),
    ("ForTokenClassification", "score"),
    ("ClassificationModel", "score"),
    ("ForRewardModeling", "embed"),
    ("RewardModel", "embed"),
    ("Model", "embed"),
)
_TRANSCRIBERS = ("Whisper",)  # that answer to audio only
_CONVERT = {"embed": "embed", "classify": "score"}  # values of vLLM's option --convert


def task_of(config: Mapping[str, Any] | None, extra_args: Mapping[str, Any]) -> str:
    """The task of a model by its config.json (None: not read) and the options that the inventory gives the engine.

    What neither tells is taken for a model that generates text, as vLLM takes it.
    """
    asked = _CONVERT.get(str(extra_args.get("convert")))
    if asked:
        return asked
    if extra_args.get("runner") == "pooling":
        return "embed"
    names = (config or {}).get("architectures")
    name = str(names[0]) if isinstance(names, Sequence) and not isinstance(names, str) and names else ""
    if name.startswith(_TRANSCRIBERS):
        return "transcribe"
    if extra_args.get("runner") == "generate":
        return "generate"
    return next((task for ending, task in _ENDINGS if name.endswith(ending)), "generate")
