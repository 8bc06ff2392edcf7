"""Record what vLLM itself makes of models: their sizes, what they do, their parameters and what their layers keep.

Usage, with the Python of an environment that holds vLLM's CPU build, torchvision and numba:
``python tests/tools/vllm_vectors.py OUTPUT.jsonl`` (some six minutes). For every architecture of vLLM's registry that a
type of model with class defaults goes with, vLLM reads a config.json with nothing but these two names in it and builds
the model without memory for it (PyTorch's meta device). The unit test test_vllm_vectors.py holds the collection's own
reading against the recorded numbers.

A line is ``config`` and, where vLLM refuses it, ``error``; else ``hidden``, ``layers``, ``heads``, ``kv_heads``,
``head_size``, ``vocabulary``, ``max_len`` (tokens), ``pooling`` and, where it could be built, ``parameters`` (a number)
and ``kv``: kind, tokens per block, bytes per block of one GPU in bfloat16, window, and number of layers that are so.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools.class_defaults import REFUSALS, classes, plain, stem

SECONDS = 90  # for one architecture


def pairs() -> Iterator[tuple[str, str]]:
    """Type of model and architecture, once per architecture."""
    import transformers.models.auto.modeling_auto as auto
    from vllm.model_executor.models.registry import ModelRegistry

    served = set(ModelRegistry.get_supported_archs())
    found: dict[str, str] = {}
    for name in sorted(dir(auto)):
        for kind, listed in getattr(auto, name).items() if name.endswith("_MAPPING_NAMES") else ():
            found.update((arch, kind) for arch in ([listed] if isinstance(listed, str) else listed) if arch in served)
    for kind in classes():
        if kind not in found.values():
            found.update((arch, kind) for arch in served if plain(kind) == plain(stem(arch)) and arch not in found)
    return ((kind, arch) for arch, kind in sorted(found.items()))


def resolved(config: dict[str, Any], path: str) -> tuple[dict[str, Any], Any]:
    """What vLLM reads in a directory, and the record that it makes of it."""
    from vllm.config import ModelConfig

    model = ModelConfig(model=path, tokenizer=path, skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True)
    arch = model.model_arch_config
    told = {
        "hidden": arch.hidden_size,
        "layers": arch.total_num_hidden_layers,
        "heads": arch.total_num_attention_heads,
        "kv_heads": arch.total_num_kv_heads,
        "head_size": arch.head_size,
        "vocabulary": arch.vocab_size,
        "max_len": model.max_model_len,
        "pooling": model.runner_type == "pooling",
    }
    return {"config": config, **told}, model


def built(model: Any) -> dict[str, Any]:
    """The parameters of a model, and what its layers keep."""
    import torch
    from vllm.config import CacheConfig, DeviceConfig, LoadConfig, VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.model_executor.model_loader.utils import initialize_model

    kinds = getattr(model.hf_text_config, "layer_types", None)  # as EngineArgs.create_engine_config has it
    window = model.get_sliding_window() if set(kinds or ()) <= {"sliding_attention"} else None

    config = VllmConfig(
        model_config=model,
        cache_config=CacheConfig(block_size=16, sliding_window=window),
        device_config=DeviceConfig("cpu"),
        load_config=LoadConfig(load_format="dummy"),
    )
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{tempfile.mkdtemp()}/store", 0, "gloo")
        initialize_model_parallel(1, 1)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            module = initialize_model(vllm_config=config)
    kept: Counter[tuple[str, int, int, int]] = Counter()
    for layer in config.compilation_config.static_forward_context.values():
        spec = layer.get_kv_cache_spec(config) if hasattr(layer, "get_kv_cache_spec") else None
        if spec is not None:
            window = getattr(spec, "sliding_window", None) or 0
            kept[type(spec).__name__, spec.block_size, spec.page_size_bytes, window] += 1
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "kv": [[*spec, count] for spec, count in sorted(kept.items())],
    }


def vector(kind: str, architecture: str) -> dict[str, Any]:
    """The line of an architecture."""
    config = {"model_type": kind, "architectures": [architecture]}
    path = tempfile.mkdtemp()
    Path(path, "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        line, model = resolved(config, path)
    except REFUSALS as error:
        return {"config": config, "error": str(error).splitlines()[0][:120] if str(error) else type(error).__name__}
    try:
        return line | built(model)
    except REFUSALS as error:  # it needs more than defaults, or another machine
        print(f"{architecture} is not built: {error!r}"[:160])
        return line


def main() -> None:
    """Write the file; every architecture has a process of its own, because what is built stays."""
    import vllm
    import vllm.model_executor.model_loader.utils  # so that each process has it already
    from vllm.model_executor.models import registry

    def looked_at(lazy: Any) -> Any:  # in this process, rather than in one more for each class
        return registry._ModelInfo.from_model_cls(lazy.load_model_cls())

    registry._LazyRegisteredModel.inspect_model_cls = looked_at
    output = Path(sys.argv[1])
    lines = [json.dumps({"by": "tests/tools/vllm_vectors.py", "vllm": vllm.__version__})]
    for kind, architecture in pairs():
        with tempfile.TemporaryDirectory() as scratch:
            told = Path(scratch, "line")
            if not (child := os.fork()):
                signal.alarm(SECONDS)
                told.write_text(json.dumps(vector(kind, architecture)), encoding="utf-8")
                os._exit(0)
            os.waitpid(child, 0)
            lines += [told.read_text(encoding="utf-8")] if told.exists() else []
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
