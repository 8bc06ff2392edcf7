"""What the hub has of a model, and which of its files vLLM loads; private to the collection.

Two requests of the hub's HTTP API (https://huggingface.co/docs/hub/api): the files of a revision with their checksums,
and the index of the weights, which names the shards. ``huggingface_hub`` is not asked for these: hosts have Python and
nothing else when their models come, and its downloads begin anew after an interruption and are not verified
(https://github.com/huggingface/huggingface_hub/pull/4228, which is in 1.x and later).
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from http.client import HTTPException
from typing import Any, NamedTuple

from .._errors import ModelStoreError
from .model_fetch import opener
from .model_files import HUB

__all__ = ["LOAD_FORMATS", "Repository", "endpoint_of", "files_of", "manifest_from_hub"]

SECONDS = 30
INDEX_LIMIT = 200_000_000

SAFETENSORS, PICKLES, TENSORS = "*.safetensors", "*.bin", "*.pt"
CONSOLIDATED = "consolidated*.safetensors"
# What vLLM looks for, in its order of preference, by --load-format (model_executor/model_loader/default_loader.py):
# the first pattern that a file has is the only one. Other formats are none of the store's: their engines download.
LOAD_FORMATS: Mapping[str, tuple[str, ...]] = {
    "auto": (CONSOLIDATED, SAFETENSORS, PICKLES, TENSORS),
    "hf": (SAFETENSORS, PICKLES, TENSORS),
    "bitsandbytes": (SAFETENSORS, PICKLES, TENSORS),
    "safetensors": (SAFETENSORS,),
    "fastsafetensors": (SAFETENSORS,),
    "instanttensor": (SAFETENSORS,),
    "mistral": (CONSOLIDATED,),
    "npcache": (PICKLES,),
    "pt": (TENSORS,),
}
INDEXES = {CONSOLIDATED: "consolidated.safetensors.index.json", SAFETENSORS: "model.safetensors.index.json"}
# Of a training, and not of the model (weight_utils.py, filter_files_not_needed_for_inference).
NOT_FOR_INFERENCE = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
# vLLM passes over the first (config/load.py, ignore_patterns); the others are what trainings leave.
NEVER = ("original/*", "checkpoint-*/*", "runs/*", "*/.*", ".*")
# Small heads that an architecture loads beside its safetensors (models/roberta.py, of BGE-M3).
BESIDE = ("*_linear.pt",)
# Weights in the formats of other programs, pictures and archives: no engine opens them.
FOREIGN = re.compile(
    r"\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|onnx|onnx_data|h5|msgpack|ot|tflite|mlmodel|mlpackage|nemo|tensors|npz|npy"
    r"|engine|plan|xml|parquet|arrow|png|jpe?g|gif|webp|svg|ico|mp[34]|wav|flac|ogg|webm|pdf|zip|tar|t?gz|7z|ipynb|md)"
    r"(\.index\.json)?$",
    re.IGNORECASE,
)


_STRANGE = "{0.endpoint} answers for {0.name}, but not as the hub does. Set fleet_hub_endpoint to one that does."


class Repository(NamedTuple):
    """A model of the hub at a revision."""

    source: str
    revision: str
    endpoint: str
    token: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.source} at {self.revision}"


def endpoint_of(named: str | None) -> str:
    """The hub's address, or that of its mirror."""
    return (named or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def manifest_from_hub(repository: Repository, load_format: str) -> dict[str, Any]:
    """The files that vLLM loads of a model, with size and checksum; raises ModelStoreError with what to do."""
    try:
        return _manifest(repository, load_format)
    except (AttributeError, KeyError, TypeError) as error:  # it is no list of files, or has other words
        raise ModelStoreError(_STRANGE.format(repository)) from error


def _manifest(repository: Repository, load_format: str) -> dict[str, Any]:
    path = f"/api/models/{repository.source}/revision/{urllib.parse.quote(repository.revision, safe='')}?blobs=true"
    info = _json(repository, path)
    entries = {entry["rfilename"]: entry for entry in info.get("siblings") or []}
    commit = str(info.get("sha", ""))

    def shards(index: str) -> set[str]:
        found = _json(repository, f"/{repository.source}/resolve/{commit}/{index}", INDEX_LIMIT)
        return set((found.get("weight_map") or {}).values())

    wanted = files_of(entries, load_format, shards)
    missing = [name for name in wanted if name not in entries]
    if missing:
        raise ModelStoreError(f"{repository.name}: its index names {missing[0]}, which it has not. Tell its authors.")
    if not any(map(FOREIGN.search, wanted)):
        raise ModelStoreError(
            f"{repository.name} has no weights that vLLM opens with load-format {load_format}. Correct source in "
            "vllm_models, or set load-format in its extra_args."
        )
    files = [_file(repository, entries[name]) for name in wanted]
    return {"source": repository.source, "revision": repository.revision, "commit": commit, "files": files}


def files_of(names: Collection[str], load_format: str, shards: Callable[[str], set[str]]) -> list[str]:
    """Which files of a model vLLM opens, in the order of their names.

    :param shards: the files of an index, by its name
    """
    usable = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in NEVER)]
    texts = {name for name in usable if not FOREIGN.search(name)}
    for pattern in LOAD_FORMATS[load_format]:
        weights = {name for name in usable if "/" not in name and fnmatchcase(name, pattern)} - set(NOT_FOR_INFERENCE)
        deeper = {name for name in usable if "/" in name and pattern == SAFETENSORS and fnmatchcase(name, pattern)}
        if not weights and not deeper:
            continue
        index = INDEXES.get(pattern, "")
        if index in names:
            weights = shards(index)
            texts.add(index)
        heads = {name for name in usable if any(fnmatchcase(name, head) for head in BESIDE)}
        texts |= weights | deeper | heads
        break
    return sorted(texts)


def _file(repository: Repository, entry: Mapping[str, Any]) -> dict[str, Any]:
    name = entry["rfilename"]
    lfs = entry.get("lfs") or {}
    digest, size = lfs.get("sha256") or entry.get("blobId"), lfs.get("size", entry.get("size"))
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", str(digest)) or not isinstance(size, int):
        raise ModelStoreError(
            f"{repository.endpoint} tells no size or no checksum of {name} of {repository.name}, so that nobody "
            "can say whether it comes whole. Set fleet_hub_endpoint to a mirror that does, or model_store_dir to '' "
            "for engines that download for themselves."
        )
    # Hidden ones are the store's own.
    if name.startswith(".") or not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")):
        raise ModelStoreError(f"{repository.name} has a file {name!r}, which would lie elsewhere. It is not taken.")
    return {"path": name, "size": size, "digest": digest}


def _json(repository: Repository, path: str, limit: int = 20_000_000) -> dict[str, Any]:
    """The answer to one question."""
    headers = {"User-Agent": "gpuhosts-models"} | (
        {"Authorization": f"Bearer {repository.token}"} if repository.token else {}
    )
    request = urllib.request.Request(f"{repository.endpoint}{path}", headers=headers)
    try:
        with opener(direct=False).open(request, timeout=SECONDS) as response:
            answer = json.loads(response.read(limit))
    except urllib.error.HTTPError as error:
        error.close()
        raise ModelStoreError(_refused(repository, error)) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ModelStoreError(
            f"{repository.endpoint} does not answer for {repository.name}: {reason}. Hosts that reach it by a proxy "
            "need HTTPS_PROXY in vllm_environment; a mirror is named by fleet_hub_endpoint, a host that reaches it by "
            "model_store_download_host; engines that have models in caches of their own need model_store_dir: ''."
        ) from error
    if not isinstance(answer, dict):
        raise ModelStoreError(_STRANGE.format(repository))
    return answer


def _refused(repository: Repository, error: urllib.error.HTTPError) -> str:
    """What the hub says in its header besides the code, and what to do."""
    code = error.headers.get("X-Error-Code", "") if error.headers else ""
    where = f"{repository.endpoint} has "
    if error.code == 404 and code == "RevisionNotFound":
        return f"{where}{repository.source}, but no revision '{repository.revision}'. Correct it in vllm_models."
    if error.code == 404:
        return f"{where}no {repository.name} that may be seen. Correct source in vllm_models, or set vllm_hf_token."
    if error.code in (401, 403):
        sent = (
            "the token in vllm_hf_token may not read it"
            if repository.token
            else "it takes a token, and vllm_hf_token is empty"
        )
        gated = " Its terms are accepted on its page of the hub." if code == "GatedRepo" else ""
        return (
            f"{repository.endpoint} does not give {repository.name} ({error.code}): {sent}. Set vllm_hf_token to one "
            f"that may.{gated} It also says so of a model that does not exist."
        )
    return f"{repository.endpoint} answers {error.code} for {repository.name}. Run again later; what has come is kept."
