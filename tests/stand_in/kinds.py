"""What the stand-in answers for models that do not generate text, as vLLM's entrypoints for pooling and speech do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GENERATE = ("/v1/completions", "/v1/chat/completions")
_SCORE = ("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank")
# The paths that an API server has, by what its model does.
PATHS: Mapping[str, Sequence[str]] = {
    "generate": GENERATE,
    "embed": ("/v1/embeddings", "/pooling", *_SCORE),
    "score": ("/classify", "/pooling", *_SCORE),
    "classify": ("/classify", "/pooling"),
    "transcribe": ("/v1/audio/transcriptions", "/v1/audio/translations"),
}
ALL = tuple(dict.fromkeys(path for paths in PATHS.values() for path in paths))


def task_of(config: Mapping[str, Any], runner: str | None, convert: str | None) -> str:
    """What a model does, by the ending of its architecture and the options that say it."""
    name = str((config.get("architectures") or [""])[0])
    if name.startswith("Whisper"):
        return "transcribe"
    if convert == "classify" or "ForSequenceClassification" in name:
        return "score" if len(config.get("id2label") or ()) == 1 else "classify"
    if convert == "embed" or runner == "pooling" or name.endswith("Model"):
        return "embed"
    return "generate"


def missing(path: str, request: Mapping[str, Any]) -> str:
    """The field that a request lacks; empty if it lacks none."""
    if path.endswith("rerank"):
        wanted: tuple[str, ...] = ("query", "documents")
    elif path.endswith("score"):
        wanted = ("text_1", "text_2") if "text_1" in request else ("queries", "documents")
    elif path in ("/v1/embeddings", "/pooling", "/classify"):
        wanted = ("input",)
    else:
        wanted = ("file",)
    return next((name for name in wanted if name not in request), "")


def answer(path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request that lacks nothing."""
    if path.startswith("/v1/audio/"):
        return {"text": "sase ralo", "usage": {"type": "duration", "seconds": 1}}
    whole = {"id": "stand-in", "model": request.get("model")}
    if path.endswith("rerank"):
        rows: list[dict[str, Any]] = [
            {"index": place, "document": {"text": text, "multi_modal": None}, "relevance_score": _score(text)}
            for place, text in enumerate(_listed(request["documents"]))
        ]
        best = sorted(rows, key=lambda row: -row["relevance_score"])
        return {**whole, "usage": _used(request["documents"]), "results": best}
    if path.endswith("score"):
        texts = _listed(request.get("text_2", request.get("documents")))
        data = [{"index": place, "object": "score", "score": _score(text)} for place, text in enumerate(texts)]
    else:
        texts = _listed(request["input"])
        data = [{"index": place, **_ROWS[path]} for place, _ in enumerate(texts)]
    return {**whole, "object": "list", "created": 0, "data": data, "usage": _used(texts)}


_ROWS: Mapping[str, Mapping[str, Any]] = {
    "/v1/embeddings": {"object": "embedding", "embedding": [0.5, -0.5]},
    "/pooling": {"object": "pooling", "data": [0.25, 0.75]},
    "/classify": {"label": "LABEL_1", "probs": [0.25, 0.75], "num_classes": 2},
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _score(text: Any) -> float:
    return len(str(text)) % 100 / 100


def _used(texts: Any) -> dict[str, int]:
    used = sum(len(str(text).split()) for text in _listed(texts))
    return {"prompt_tokens": used, "total_tokens": used}


ADAPTERS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")


def change_adapters(path: str, request: Mapping[str, Any], adapters: dict[str, str]) -> tuple[int, str]:
    """Load or unload an adapter, as entrypoints/openai/models/serving.py does; status and body."""
    name = request["lora_name"]
    if path == ADAPTERS[1]:
        if name not in adapters:
            return 404, _refusal(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del adapters[name]
        return 200, f"Success: LoRA adapter '{name}' removed successfully."
    if name in adapters and not request.get("load_inplace"):
        return 400, _refusal(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
    if not Path(request["lora_path"], "adapter_config.json").is_file():
        return 404, _refusal(404, "NotFoundError", f"No adapter found for {request['lora_path']}")
    adapters[name] = request["lora_path"]
    return 200, f"Success: LoRA adapter '{name}' added successfully."


def _refusal(status: int, kind: str, message: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}})


def fields_of(body: bytes, content_type: str) -> dict[str, Any]:
    """The fields of a form with their values, those of a file as they are."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    found: dict[str, Any] = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        found[name] = value if b"filename=" in head else value.decode()
    return found
