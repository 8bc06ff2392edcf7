"""What vLLM 0.33 does or refuses by architecture, type of model and quantisation; private to the collection."""

from __future__ import annotations

__all__ = [
    "CHECKED_TYPES",
    "EMBEDDING_EVERYWHERE",
    "ENCODER_ONLY",
    "HEAD_EVERYWHERE",
    "METHOD_CAPABILITY",
    "NO_FP16",
    "NO_PIPELINE",
]

# Types of models for which the formulas were compared with published sizes, or with what vLLM itself builds of their
# class defaults (tests/unit/fixtures/vllm_vectors.jsonl); any other model gets a wide band.
CHECKED_TYPES = frozenset(
    {
        "apertus", "arcee", "aria", "audioflamingo3", "axk1", "bagel", "baichuan", "bamba", "bert", "bloom",
        "cohere", "cohere2", "cohere2_moe", "cohere2_vision", "colpali", "cwm", "dbrx", "deepseek_v2",
        "deepseek_v3", "deepseek_v32", "dots1", "embedding_gemma2", "ernie4_5", "ernie4_5_moe", "exaone",
        "exaone4", "exaone4_5", "exaone_moe", "falcon", "falcon_h1", "falcon_mamba", "flex_olmo", "gemma",
        "gemma2", "gemma3", "gemma3_text", "gemma4_text", "glm", "glm4", "glm4_moe", "glm4_moe_lite", "glmasr",
        "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granite_swa", "granitemoe",
        "granitemoe_swa", "granitemoehybrid", "granitemoeshared", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v4",
        "hyperclovax", "idefics3", "internlm2", "internlm3", "internvl", "internvl_chat", "jais2", "jamba",
        "kimi_k2", "kimi_linear", "kimi_vl", "laguna", "llama", "llama4", "llama4_text", "llava", "llava_next",
        "llava_next_video", "llava_onevision", "mamba", "mamba2", "mellum", "minicpm", "minicpm3",
        "minicpmv4_6", "minicpmv4_7", "minimax_m2", "ministral3", "mistral", "mistral3", "mixtral",
        "modernbert", "moss_transcribe_diarize", "mpt", "nemotron", "nemotron_h", "olmo", "olmo2", "olmo3",
        "olmoe", "openai_privacy_filter", "opt", "paddleocr_vl", "paligemma", "phi", "phi3", "phimoe",
        "pixtral", "qianfan_ocr", "qwen", "qwen2", "qwen2_5_omni", "qwen2_5_vl", "qwen2_audio", "qwen2_moe",
        "qwen2_vl", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_asr",
        "qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_vl_text", "roberta",
        "seed_oss", "smollm3", "smolvlm", "stablelm", "starcoder2", "transformer", "vaultgemma", "whisper",
        "xlm-roberta",
    }
)  # fmt: skip

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
