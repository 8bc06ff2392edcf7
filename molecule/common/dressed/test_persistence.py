"""NVIDIA's persistence daemon, whose unit each package writes in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def test_its_sandbox_is_tight(host: Any, exposure: Callable[[Any, str], float]) -> None:
    assert exposure(host, "nvidia-persistenced") <= 3.0
