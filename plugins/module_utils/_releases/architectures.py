"""What vLLM 0.33 does or refuses by architecture, type of model and quantisation; private to the collection."""

from __future__ import annotations

__all__ = [
    "EMBEDDING_EVERYWHERE",
    "ENCODER_ONLY",
    "HEAD_EVERYWHERE",
    "METHOD_CAPABILITY",
    "NO_FP16",
    "NO_PIPELINE",
]

# `get_min_capability` of each method of quantisation, as (major, minor); the others run wherever the wheels do.
METHOD_CAPABILITY: dict[str, tuple[int, int]] = {
    "modelopt": (8, 0),
    "mxfp4": (8, 0),
    "gpt_oss_mxfp4": (8, 0),
    "modelopt_mxfp8": (8, 0),
    "experts_int8": (8, 0),
    "quark_w8a8_fp8": (8, 9),
    "w4a8_fp8": (9, 0),
}
# Models that overflow in fp16 and that vLLM refuses to run in it (`_resolve_auto_dtype`, config/model.py).
NO_FP16 = frozenset({"gemma2", "gemma3", "gemma3_text", "plamo2", "glm4"})

# Architectures of the registry whose class is no `SupportsPP` (`model_executor/models/*.py`): "Pipeline parallelism is
# not supported for this model" (config/model.py).
NO_PIPELINE = frozenset(
    {
        "AliceAIForCausalLM",
        "AriaForConditionalGeneration",
        "CohereAsrForConditionalGeneration",
        "DiffusionGemmaForBlockDiffusion",
        "DomynEdgeForCausalLM",
        "DoryForCausalLM",
        "FireRedASR2ForConditionalGeneration",
        "FunASRForConditionalGeneration",
        "Gemma3nForCausalLM",
        "Gemma3nForConditionalGeneration",
        "HrmTextForCausalLM",
        "IQuestLoopCoderForCausalLM",
        "Idefics3ForConditionalGeneration",
        "Mamba2ForCausalLM",
        "NemotronH_Nano_Omni_Reasoning_V3",
        "NemotronH_Nano_VL_V2",
        "NemotronH_Omni_Reasoning_V3",
        "NemotronH_Super_Omni_Reasoning_V3",
        "NemotronParseForConditionalGeneration",
        "PaddleOCRVLForConditionalGeneration",
        "Phi4MMForCausalLM",
        "SmolVLMForConditionalGeneration",
        "WhisperForConditionalGeneration",
        "Zamba2ForCausalLM",
    }
)

# Architectures whose tokens see those before and after them, so that nothing is kept between steps: their layers are
# `EncoderOnlyAttention` (models/{bert,bert_with_rope,roberta,modernbert,siglip,...}.py, and those of models/config.py
# that set `is_causal` to False).
ENCODER_ONLY = frozenset(
    {
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "BertForTokenClassification",
        "BertModel",
        "BertSpladeSparseEmbeddingModel",
        "BgeM3EmbeddingModel",
        "ColBERTJinaRobertaModel",
        "ColBERTLfm2Model",
        "ColBERTModernBertModel",
        "ColModernVBertForRetrieval",
        "ColUltraVBertForRetrieval",
        "EmbeddingGemma2Model",
        "GteModel",
        "GteNewForSequenceClassification",
        "GteNewModel",
        "HF_ColBERT",
        "Lfm2BidirectionalModel",
        "LlamaBidirectionalForSequenceClassification",
        "LlamaBidirectionalModel",
        "LlamaNemotronVLForSequenceClassification",
        "LlamaNemotronVLModel",
        "ModernBertForSequenceClassification",
        "ModernBertForTokenClassification",
        "ModernBertModel",
        "ModernVBertModel",
        "NomicBertModel",
        "OpenAIPrivacyFilterForTokenClassification",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaModel",
        "SiglipModel",
        "VoyageQwen3BidirectionalEmbedModel",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForTokenClassification",
        "XLMRobertaModel",
    }
)

# Models of vLLM 0.33 whose pipeline stages all hold the input embedding, and those that all hold the output layer too
# (seen by building the middle one of three stages); the others hold them on the first and the last stage only.
HEAD_EVERYWHERE = frozenset(
    {"gpt_oss", "gptj", "granitemoe", "granitemoehybrid", "granitemoeshared", "jamba", "mamba2", "mixtral",
     "nemotron_h", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_vl_moe", "stablelm"}
)  # fmt: skip
EMBEDDING_EVERYWHERE = HEAD_EVERYWHERE | {
    "cohere", "cohere2", "cohere2_moe", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4",
    "gpt2", "lfm2", "lfm2_moe", "mamba", "minicpm3", "opt", "qwen3_5", "qwen3_5_moe", "zamba2",
}  # fmt: skip
