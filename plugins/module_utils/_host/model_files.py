"""What the files of a model say: its configuration, and the tensors in its weights, without reading a weight.

The files are in a directory, in the hub's cache of a host, or on the hub. Only the last needs ``huggingface_hub``,
and this is the only module that imports it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# Nothing of this collection: every run sends this to every host, which compiles what it imports each time.

__all__ = ["HUB", "HubOptions", "ModelFilesError", "is_hub_id", "read_models", "sources"]

HUB = "https://huggingface.co"

# Weights in Mistral's own format, which vLLM prefers, and in that of transformers; each with its list of shards.
CONSOLIDATED = re.compile(r"consolidated[^/]*\.safetensors")
SHARDS = re.compile(r"[^/]*\.safetensors")
INDEXES = {CONSOLIDATED: "consolidated.safetensors.index.json", SHARDS: "model.safetensors.index.json"}
# What training leaves beside the weights (model_loader/weight_utils.py, filter_files_not_needed_for_inference).
NOT_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})
# Where sentence-transformers keeps its own settings (transformers_utils/config.py).
SENTENCES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# What says what a model is made of; the second is Mistral's.
CONFIGS = ("config.json", "params.json")
# The limit of the safetensors library itself; more is not a header.
HEADER_LIMIT = 100_000_000
# Bytes of JSON that the tensors may take in a fact.
TENSORS_LIMIT = 48 * 1024


def is_hub_id(source: str) -> bool:
    """Whether a source is the id of a model on the hub."""
    return bool(re.fullmatch(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", source, re.ASCII))


class ModelFilesError(Exception):
    """The model cannot be read; the message says what was looked for, where, and what to do.

    ``problem`` is the same without the ``remedy`` in options of the module ``model_facts``: other callers have others.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}. {remedy}" if remedy else problem)
        self.problem = problem


class ClientMissingError(ModelFilesError):
    """The hub is to be asked, and there is no client for it: a mistake of the machine's, not of a model."""


class HubOptions(NamedTuple):
    """How a model that is not a directory is found."""

    home: str | None = None  # as HF_HOME; None: what the environment says
    online: bool = False  # may the hub itself be asked?
    endpoint: str | None = None  # a mirror of the hub
    token: str | None = None


class _Tensor(NamedTuple):
    """One entry of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int  # bytes


class _Files(Protocol):
    """Where the files of one model are."""

    revision: str | None
    path: str | None
    sizes: Mapping[str, int]  # bytes by file name

    def read(self, name: str) -> bytes:
        """The content of a small file."""

    def tensors(self, names: Sequence[str]) -> Iterable[_Tensor]:
        """The headers of safetensors files."""


def sources(models: Iterable[Any], only: str | None = None) -> list[dict[str, str]]:
    """Name, source and revision of models: of all, or of those that are a ``directory`` or on the ``hub``.

    Their adapters are among them, with ``kind``. Entries that are wrong are passed over: the planner names them all.
    """
    mappings = [model for model in models if isinstance(model, Mapping)]
    entries = [_entry(model) for model in mappings]
    for model in mappings:
        adapters = model.get("lora")
        listed = adapters if isinstance(adapters, (list, tuple)) else ()
        entries += [{**_entry(adapter), "kind": "adapter"} for adapter in listed if isinstance(adapter, Mapping)]
    found = [entry for entry in entries if {"name", "source"} <= entry.keys()]
    return [entry for entry in found if only is None or entry["source"].startswith("/") == (only == "directory")]


def _entry(model: Mapping[Any, Any]) -> dict[str, str]:
    return {key: model[key] for key in ("name", "source", "revision") if isinstance(model.get(key), str)}


def read_models(
    models: Iterable[Mapping[str, Any]], hub: HubOptions, *, required: bool = True
) -> dict[str, dict[str, Any]]:
    """The facts of every model by its name, as documented in the module ``model_facts``.

    :param models: ``name``, ``source`` (an absolute path, or else an id on the hub) and ``revision`` of each
    :param required: False: what cannot be read has ``problem`` for its only fact besides ``source``
    :raises ModelFilesError: one line for every model that is not there or whose files are damaged; or the hub is to be
        asked and cannot be
    """
    facts: dict[str, dict[str, Any]] = {}
    problems = []
    for model in models:
        found = _attempt(model["source"], model.get("revision"), hub, model.get("kind") == "adapter")
        if isinstance(found, ModelFilesError) and not required:
            facts[model["name"]] = {"source": model["source"], "problem": found.problem}
        elif isinstance(found, ModelFilesError):
            problems.append(f"{model['name']}: {found}.")
        else:
            facts[model["name"]] = found
    if problems:
        raise ModelFilesError("\n".join(problems))
    return facts


def _attempt(source: str, revision: str | None, hub: HubOptions, is_adapter: bool) -> dict[str, Any] | ModelFilesError:
    """The facts of a model, or what is wrong.

    :raises ClientMissingError: the hub cannot be asked
    """
    try:
        if is_adapter:
            return _adapter(source, _Directory(Path(source), None))
        if source.startswith("/"):
            return _facts(source, _Directory(Path(source), None))
        return _from_hub(source, revision, hub)
    except ClientMissingError:
        raise
    except ModelFilesError as error:
        return error
    except OSError as error:
        return ModelFilesError(f"{error.filename} cannot be read: {error.strerror}")


def _from_hub(source: str, revision: str | None, hub: HubOptions) -> dict[str, Any]:
    if not is_hub_id(source):
        raise ModelFilesError(f"{source!r} is neither an absolute path nor the id of a model on the hub (owner/name)")
    cached, looked = _cached(source, revision or "main", hub.home)
    facts = _facts(source, cached) if cached else None
    if hub.online and (facts is None or facts["bytes_from"] == "none"):  # a cache may hold the configuration alone
        with _hub_errors(source, hub), tempfile.TemporaryDirectory() as scratch:
            return _facts(source, _Hub(source, revision, hub, scratch))
    if facts is None:
        raise ModelFilesError(
            f"{source} (revision {revision or 'main'}) is not on this host: {looked}",
            "Download it there, name the cache that has it with hf_home, or let the hub be asked with online: true",
        )
    return facts


class _Directory:
    """A model in a directory."""

    def __init__(self, root: Path, revision: str | None) -> None:
        self.revision = revision
        self.path: str | None = str(root)
        self._root = root
        if not root.is_dir():
            raise ModelFilesError(f"there is no directory {root} on this host")
        # In the hub's cache these are links; one to nothing is a file that was not downloaded.
        self.sizes: Mapping[str, int] = {
            path.name: path.stat().st_size for path in sorted(root.iterdir()) if path.is_file()
        }

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def tensors(self, names: Sequence[str]) -> Iterator[_Tensor]:
        for name in names:
            yield from _header(self._root / name, self.sizes[name])


class _Hub:
    """A model on the hub: only small files and the headers of the weights are fetched, and nothing is kept."""

    def __init__(self, source: str, revision: str | None, options: HubOptions, scratch: str) -> None:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise ClientMissingError(
                f"{source} is not in the hub cache of this machine, and to ask the hub (fleet_hub_online: true) needs "
                f"the Python package huggingface_hub, which {sys.executable} does not have. Install it for that "
                f"Python: {sys.executable} -m pip install huggingface_hub"
            ) from error
        self._api = HfApi(endpoint=options.endpoint, token=options.token)
        self._source = source
        self._scratch = scratch
        info = self._api.model_info(source, revision=revision, files_metadata=True)
        self.path: str | None = None
        self.revision: str | None = info.sha
        self.sizes: Mapping[str, int] = {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def read(self, name: str) -> bytes:
        # Into the scratch directory and not into the cache: reading facts changes nothing.
        local = self._api.hf_hub_download(self._source, name, revision=self.revision, local_dir=self._scratch)
        return Path(local).read_bytes()

    def tensors(self, names: Sequence[str]) -> Iterator[_Tensor]:
        with ThreadPoolExecutor(8) as pool:
            for tensors in pool.map(self._header, names):
                yield from tensors

    def _header(self, name: str) -> list[_Tensor]:
        header = self._api.parse_safetensors_file_metadata(self._source, name, revision=self.revision)
        return [
            _Tensor(name, tensor.dtype, tuple(tensor.shape), tensor.data_offsets[1] - tensor.data_offsets[0])
            for name, tensor in header.tensors.items()
        ]


@contextmanager
def _hub_errors(source: str, options: HubOptions) -> Iterator[None]:
    """Every way in which the hub can fail, as one error with the hub's address in it."""
    try:
        from huggingface_hub import errors
    except ImportError:
        yield  # _Hub says it better
        return
    # HTTPError is the base of its HTTP library's errors: that library has changed, this name of it has not.
    known = (errors.HTTPError, errors.SafetensorsParsingError, OSError, ValueError)
    try:
        yield
    except known as error:
        address = options.endpoint or os.environ.get("HF_ENDPOINT", HUB)
        raise ModelFilesError(f"{source} cannot be read from {address}: {error}") from error


def _cached(source: str, revision: str, home: str | None) -> tuple[_Directory | None, str]:
    """A model in the hub's cache, and what was looked at: models--OWNER--NAME/{refs/REVISION,snapshots/COMMIT}."""
    default = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface"), "hub")
    cache = Path(home, "hub") if home else Path(default)
    root = cache.expanduser() / f"models--{source.replace('/', '--')}"
    if not root.is_dir():
        return None, f"there is no {root}"
    if not re.fullmatch(r"(?!.*\.\.)\w[\w./-]*", revision):
        raise ModelFilesError(f"{revision!r} is not a revision of {source}")
    ref = root / "refs" / revision
    commit = ref.read_text(errors="replace").strip() if ref.is_file() else revision
    snapshot = root / "snapshots" / commit
    if not any((snapshot / name).is_file() for name in CONFIGS):
        return None, f"{root} has neither refs/{revision} nor snapshots/{commit}/config.json"
    return _Directory(snapshot, commit), ""


def _facts(source: str, files: _Files) -> dict[str, Any]:
    config = next((found for found in (_json(files, name) for name in CONFIGS) if found is not None), None)
    if config is None:
        where = files.path or files.revision
        raise ModelFilesError(
            f"{source} has no config.json, and no params.json ({where}): it is not a model in Hugging Face's"
            " layout, and not in Mistral's"
        )
    # As vLLM does (transformers_utils/config.py, get_config): ModelOpt once wrote it into a file of its own.
    if not config.get("quantization_config") and (quantized := _json(files, "hf_quant_config.json")):
        config["quantization_config"] = quantized
    tokenizer = _json(files, "tokenizer_config.json") or {}
    templates = {"chat_template.jinja", "chat_template.json"} & set(files.sizes)
    tensors, size, bytes_from = _weights(files)
    return {
        "source": source,
        "revision": files.revision,
        "path": files.path,
        "config": config,
        "generation": _json(files, "generation_config.json"),
        "embeds": _embeds(files),
        "max_seq_length": _sentence_length(files),
        "tokenizer_length": _tokenizer_length(tokenizer),
        "chat_template": bool(templates or tokenizer.get("chat_template")),
        "tensors": tensors,
        "safetensors_bytes": size,
        "bytes_from": bytes_from,
    }


def _adapter(source: str, files: _Files) -> dict[str, Any]:
    """What PEFT's adapter_config.json says: the largest rank of a module, and the model that it was made for."""
    config = _json(files, "adapter_config.json")
    if config is None:
        raise ModelFilesError(f"{source} has no adapter_config.json: it is not an adapter in PEFT's layout")
    if config.get("peft_type", "LORA") != "LORA":
        raise ModelFilesError(f"{source} is an adapter of the kind {config['peft_type']}, and vLLM takes LORA")
    ranks = [config.get("r"), *_object(config, "rank_pattern").values()]
    known = [rank for rank in ranks if isinstance(rank, int) and not isinstance(rank, bool) and rank > 0]
    adapter = {"rank": max(known, default=None), "base": config.get("base_model_name_or_path")}
    return {"source": source, "path": files.path, "adapter": adapter}


def _embeds(files: _Files) -> bool:
    """Whether it is a model of sentence-transformers with a pooling module, which vLLM runs for embeddings."""
    if "modules.json" not in files.sizes:
        return False
    try:
        modules = json.loads(files.read("modules.json"))
        # As vLLM's transformers_utils/config.py names them, in the old spelling and the new one.
        return any(str(module["type"]).endswith((".models.Pooling", ".modules.pooling.Pooling")) for module in modules)
    except (KeyError, TypeError, ValueError) as error:
        where = files.path or files.revision
        raise ModelFilesError(f"modules.json of {where} is no list of modules: {error}") from error


def _sentence_length(files: _Files) -> int | None:
    """The longest input in tokens by sentence-transformers, which vLLM takes as the model's length."""
    for name in SENTENCES:
        length = (_json(files, name) or {}).get("max_seq_length")
        if isinstance(length, int) and not isinstance(length, bool) and length > 0:
            return length
    return None


def _tokenizer_length(tokenizer: Mapping[str, Any]) -> int | None:
    """The longest input in tokens by the tokenizer; a number beyond all lengths is its way to say nothing."""
    length = tokenizer.get("model_max_length")
    return length if isinstance(length, int) and 0 < length < 10**9 else None


def _weights(files: _Files) -> tuple[list[dict[str, Any]], int | None, str]:
    """The tensors by pattern, the bytes of all of them, and where these numbers are from.

    Of what lies in a directory, vLLM loads one format (model_loader/default_loader.py, _prepare_weights).
    """
    names = sorted(name for name in files.sizes if SHARDS.fullmatch(name))
    consolidated = [name for name in names if CONSOLIDATED.fullmatch(name)]
    known = [INDEXES[CONSOLIDATED if consolidated else SHARDS], *INDEXES.values()]
    index = next((name for name in known if name in files.sizes), None)
    listed = (_json(files, index) if index else None) or {}
    if index:
        shards = sorted({str(shard) for shard in _object(listed, "weight_map").values()})
    elif consolidated:
        shards = consolidated
    elif "model.safetensors" in files.sizes:
        shards = ["model.safetensors"]  # what lies beside it is an adapter, or the same weights once more
    else:
        shards = names
    if shards and set(shards) <= set(files.sizes):
        tensors = list(files.tensors(shards))
        return _by_pattern(tensors), sum(tensor.size for tensor in tensors), "headers"
    if index:  # some shards are not here (yet)
        total = _object(listed, "metadata").get("total_size")
        return ([], int(total), "index") if isinstance(total, (int, float)) else ([], None, "none")
    for pattern in (r"[^/]*\.bin", r"[^/]*\.pt"):
        found = [name for name in files.sizes if re.fullmatch(pattern, name) and name not in NOT_WEIGHTS]
        if found:
            return [], sum(files.sizes[name] for name in found), "files"
    return [], None, "none"


def _by_pattern(tensors: Iterable[_Tensor]) -> list[dict[str, Any]]:
    """Tensors that differ in the numbers in their names only (of layers, of experts), added up.

    Should that be too much for a fact, which no known model is, the smallest become one entry named ``*``.
    """
    counts: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    sizes: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    for tensor in tensors:
        key = (re.sub(r"(?<![^.])\d+(?![^.])", "*", tensor.name), tensor.dtype, tensor.shape)
        counts[key] += 1
        sizes[key] += tensor.size
    kept: list[dict[str, Any]] = []
    rest: dict[str, Any] = {"name": "*", "dtype": None, "shape": None, "count": 0, "bytes": 0}
    room = TENSORS_LIMIT
    for key in sorted(counts, key=lambda key: (-sizes[key], key)):
        name, dtype, shape = key
        entry = {"name": name, "dtype": dtype, "shape": list(shape), "count": counts[key], "bytes": sizes[key]}
        room -= len(json.dumps(entry))
        if room > 0:
            kept.append(entry)
        else:
            rest["count"] += counts[key]
            rest["bytes"] += sizes[key]
    kept.sort(key=lambda entry: (entry["name"], entry["dtype"], entry["shape"]))
    return [*kept, rest] if rest["count"] else kept


def _header(path: Path, size: int) -> list[_Tensor]:
    """The header of a safetensors file: its length in 8 bytes, little endian, then JSON, then the data.

    :raises ModelFilesError: that is not what the file is like
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if prefix == b"version ":
            raise ModelFilesError(f"{path} is a pointer of Git LFS, not the weights: run git lfs pull there")
        if not 0 < length <= min(HEADER_LIMIT, size - 8):
            raise ModelFilesError(
                f"{path} is not a safetensors file, or a damaged one: it announces a header of {length} bytes "
                f"and has {size} in all; download it again"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = [_tensor(name, entry) for name, entry in header.items()]
        data = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFilesError(f"{path} has a damaged header ({error!r}); download it again") from error
    if 8 + length + data > size:
        raise ModelFilesError(f"{path} is cut off at {size} of {8 + length + data} bytes; download it again")
    return tensors


def _tensor(name: str, entry: Mapping[str, Any]) -> _Tensor:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError(f"{name} lies from byte {begin} to {end}")
    return _Tensor(name, str(entry["dtype"]), tuple(map(int, entry["shape"])), end - begin)


def _json(files: _Files, name: str) -> dict[str, Any] | None:
    """A JSON object among the files; None if there is no such file."""
    if name not in files.sizes:
        return None
    try:
        # Python writes Infinity and NaN into JSON (Mamba's time_step_limit); nothing else reads them: keep their names.
        value = json.loads(files.read(name), parse_constant=str)
    except ValueError as error:
        raise ModelFilesError(f"{name} of {files.path or files.revision} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{name} of {files.path or files.revision} is not a JSON object")
    return value


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A JSON object in another; an empty one where it is missing or something else."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}
