"""What a model does, and so what its readiness asks of it; pure, private to the collection.

The sources are vLLM's: config/model.py (which runner and which conversion an architecture gets), its registry of
models, entrypoints/pooling (which paths a pooling model has), transformers_utils/config.py (sentence-transformers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._engine.probe import TASKS

__all__ = ["POOLS", "TASKS", "options_for", "task_of"]

# _SUFFIX_TO_DEFAULTS: the first ending that fits counts. What pools is an embedding, or a classifier.
_ENDINGS = (
    ("ForCausalLM", "generate"),
    ("ForConditionalGeneration", "generate"),
    ("ChatModel", "generate"),
    ("LMHeadModel", "generate"),
    ("ForTextEncoding", "embed"),
    ("EmbeddingModel", "embed"),
    ("ForSequenceClassification", "classify"),
    ("ForTokenClassification", "classify"),
    ("ForAudioClassification", "classify"),
    ("ForImageClassification", "classify"),
    ("ForVideoClassification", "classify"),
    ("ClassificationModel", "classify"),
    ("ForRewardModeling", "embed"),
    ("RewardModel", "embed"),
    ("Model", "embed"),
)
# Of the registry, those whose class does something else than the ending says, or that have none of the endings.
_KNOWN = {
    **dict.fromkeys(("BertForMaskedLM", "RobertaForMaskedLM"), "embed"),
    # Their classes are those of the language models.
    **dict.fromkeys(
        (
            "ChatGLMModel",
            "DeepseekV3BidirectionalModel",
            "Gemma2Model",
            "LlamaModel",
            "MistralModel",
            "MossAudioModel",
            "Qwen2Model",
            "Qwen2_5OmniModel",
            "UltravoxModel",
        ),
        "generate",
    ),
    # They embed each token, and compare these: late interaction, which answers to /score.
    **dict.fromkeys(
        (
            "HF_ColBERT",
            "ColBERTModernBertModel",
            "ColBERTJinaRobertaModel",
            "ColBERTLfm2Model",
            "JinaForRanking",
            "ColModernVBertForRetrieval",
            "ColPaliForRetrieval",
            "ColQwen3",
            "OpsColQwen3Model",
            "ColQwen3_5",
            "Qwen3VLNemotronEmbedModel",
        ),
        "score",
    ),
    "JinaVLForRanking": "score",  # a classifier, to which vLLM gives one label
    # Each token gets a reward: classes of tokens.
    **dict.fromkeys(("ClefFlashForJointSchema", "ClefOmniForJointSchema"), "classify"),
    **dict.fromkeys(("InternLM2ForRewardModel", "Qwen2ForRewardModel", "Qwen2ForProcessRewardModel"), "classify"),
    # supports_transcription_only: they answer to audio, and to nothing else.
    **dict.fromkeys(
        (
            "CohereAsrForConditionalGeneration",
            "FireRedASR2ForConditionalGeneration",
            "FunASRForConditionalGeneration",
            "MossTranscribeDiarizeForConditionalGeneration",
            "WhisperForConditionalGeneration",
        ),
        "transcribe",
    ),
}
POOLS = ("embed", "score", "classify")


def task_of(
    config: Mapping[str, Any] | None,
    extra_args: Mapping[str, Any],
    *,
    embeds: bool = False,
    stated: str | None = None,
) -> str:
    """The task of a model by its config.json (None: not read) and the options that the inventory gives the engine.

    What neither tells is taken for a model that generates text, as vLLM takes it.

    :param embeds: its modules.json names a pooling module, as models of sentence-transformers have it.
    :param stated: the task that the inventory states.
    """
    if stated:
        return stated
    config = config or {}
    runner, convert = extra_args.get("runner", "auto"), extra_args.get("convert", "auto")
    converted = convert if convert in ("embed", "classify") else None
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, Sequence) and not isinstance(names, str) and names else ""
    known = _KNOWN.get(name) or _by_ending(name)
    pools = runner == "pooling" or (runner != "generate" and bool(converted or embeds or known in POOLS))
    if not pools:
        return "generate" if known in POOLS or known is None else known
    if name not in _KNOWN or _KNOWN[name] not in POOLS:
        known = converted or (known if known in POOLS else "embed")
    return "score" if known == "classify" and _has_one_label(name, config) else str(known)


def options_for(stated: str | None, by_itself: str) -> dict[str, str]:
    """The options that make vLLM run a model for the task that is stated, where it would not by itself."""
    if stated is None or stated == by_itself:
        return {}
    if stated not in POOLS:
        return {"runner": "generate"}
    return {"runner": "pooling", "convert": "embed" if stated == "embed" else "classify"}


def _by_ending(name: str) -> str | None:
    return next((task for ending, task in _ENDINGS if name.endswith(ending)), None)


def _has_one_label(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a classifier tells one number, and so has /score (entrypoints/pooling/utils.py, enable_scoring_api)."""
    if "ForTokenClassification" in name or name.endswith(("RewardModel", "ProcessRewardModel")):
        return False
    if config.get("method"):  # a classifier made of a language model (models/adapters.py)
        tokens = config.get("classifier_from_token") or ()
        return config["method"] == "from_2_way_softmax" or len(tokens) == 1
    labels = config.get("num_labels") or len(config.get("id2label") or ()) or 2  # as transformers counts them
    return bool(labels == 1)
