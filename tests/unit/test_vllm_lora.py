"""How the architectures without LoRA adapters are read from vLLM's sources, on sources made up for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tools.vllm_lora import release, without_adapters

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = {
    "_version.py": "__version__ = version = '0.33.0'\n",
    "model_executor/models/registry.py": """
_TEXT_GENERATION_MODELS = {
    "Plain": ("one", "Plain"),
    "Takes": ("one", "Takes"),
    "Inherits": ("two", "Inherits"),
    "Made": ("two", "Made"),
    "Chosen": ("vllm.models.chosen", "Chosen"),
}
_SPECULATIVE_DECODING_MODELS = {"Draft": ("one", "Plain")}
_OTHER = {"Other": ("one", "Plain")}
""",
    "model_executor/models/one.py": """
from .interfaces import SupportsLoRA
class Plain(nn.Module, Generic[T]): ...
class Takes(nn.Module, SupportsLoRA): ...
""",
    "model_executor/models/two.py": """
from vllm.model_executor.models.one import Plain, Takes as Renamed
class Inherits(Plain, Renamed[int]): ...
_Made = as_embedding_model(Renamed)
class Made(_Made): ...
""",
    "models/chosen/__init__.py": """
if cuda:
    from .nvidia.model import Chosen
else:
    from vllm.model_executor.models.one import Plain as Chosen
""",
    "models/chosen/nvidia/model.py": "from ...base import Base\nclass Chosen(Base): ...\n",
    "models/base.py": "from vllm.model_executor.models.one import Takes\nBase = Takes\n",
}


def test_it_follows_bases_through_imports_names_and_platforms(tmp_path: Path) -> None:
    for name, text in SOURCES.items():
        (tmp_path / "vllm" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "vllm" / name).write_text(text)
    assert (release(tmp_path), without_adapters(tmp_path)) == ((0, 33), ["Plain"])
