"""Measurements of engines that ran, kept by the operator for the next plan; private to the collection.

After a roll-out ``serve.yml`` writes, for every engine that was free to take what there was, how many blocks its KV
cache got, on which boot, and the conditions: everything that this memory depends on. :class:`Calibration` finds the
measurements that were made under the conditions of a planned engine, and what they say of its account.

Two start-ups of one engine have the same memory but for two things: the first boot, which compiles, has less than those
that find the compiler's work done, and tables grow with the context. So only measurements of a first boot at the
planned context replace a prediction; the others can lower it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._errors import CalibrationError
from .._releases.regimes import Unknown, regime_of
from .._units import GIB
from .account import Budget, Measured, measured_kv_bytes
from .catalogue import GpuType
from .cuda import boots_differ
from .engine_options import EngineOptions
from .model import ModelSpec

__all__ = ["CONDITIONS", "Calibration", "Found", "Measurement", "digest", "read_measurements"]

# What the memory for a KV cache depends on, and what a message calls it. Two of them are digests.
CONDITIONS = {
    "model": "files, source or revision of the model",
    "options": "options or environment",
    "vllm": "version of vLLM",
    "gpu": "GPU",
    "total_gib": "GPU memory",
    "nvlink": "NVLink",
    "driver": "driver branch",
    "tensor": "tensor parallel size",
    "expert": "expert parallelism",
    "context_length": "context length",
}
_DIGESTS = ("model", "options")
_BOOTS = ("cold", "warm", None)


@dataclass(frozen=True)
class Measurement:
    """What one engine had: ``blocks`` and ``tokens`` of its KV cache, as it reported them itself.

    ``boot`` is ``cold`` (torch.compile had to compile, as on the first boot), ``warm``, or None: not known.
    """

    model: str  # its name, for messages: what matters of the model is among the conditions
    host: str
    date: str
    boot: str | None
    blocks: int
    tokens: int
    conditions: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.host} on {self.date}"


def digest(*values: Any) -> str:
    """A short name for plain data; equal data has an equal one, in whatever order its keys come."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_measurements(content: Any) -> list[Measurement]:
    """The measurements in what ``serve.yml`` wrote as ``effective.json``; entries without one are passed over.

    :raises CalibrationError: it is something else, or was changed by hand so that it cannot be one.
    """
    if not isinstance(content, list):
        raise CalibrationError("it is no list; keep a copy of reports/effective.json as serve.yml writes it")
    found = []
    for number, entry in enumerate(content):
        if not isinstance(entry, Mapping) or "measurement" not in entry:
            raise CalibrationError(f"entry {number} is not of reports/effective.json as serve.yml writes it")
        if entry["measurement"] is not None:
            found.append(_measurement(entry, f"the measurement of entry {number}"))
    return found


def _measurement(entry: Mapping[str, Any], where: str) -> Measurement:
    try:
        found = Measurement(model=entry["model"], **entry["measurement"])
    except (KeyError, TypeError) as error:
        raise CalibrationError(f"{where} is incomplete or not of this version ({error}); measure anew") from error
    texts = (found.model, found.host, found.date)
    counts = (found.blocks, found.tokens)
    if not all(isinstance(text, str) for text in texts) or found.boot not in _BOOTS:
        raise CalibrationError(f"{where} has a model, host, date or boot that cannot be one")
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise CalibrationError(f"{where} has blocks {found.blocks!r} and tokens {found.tokens!r}, which are no counts")
    if not isinstance(found.conditions, Mapping) or set(found.conditions) != set(CONDITIONS):
        raise CalibrationError(f"{where} was made with another version of this collection; measure anew")
    return found


@dataclass(frozen=True)
class Found:
    """What measurements say of an account: ``measured`` ``by`` the one that decides.

    Without ``measured``, its blocks and tokens do not belong together. ``lengths`` are the contexts of all of them.
    """

    by: Measurement
    measured: Measured | None = None
    lengths: frozenset[int] = frozenset()

    def told(self, predicted: Budget, budget: Budget) -> tuple[str | None, str | None]:
        """What was done with it, and what is wrong with it: for the plan's reasons and warnings."""
        if self.measured is None:
            reason = f"{self.by.blocks} blocks do not make {self.by.tokens} tokens of this model"
            return None, f"the calibration by {self.by} is not used: {reason}; measure anew"
        size, band = self.measured.kv_bytes / GIB, 2 * predicted.band.kv_cache
        account = f"{predicted.kv_cache:.2f} were predicted, give or take {band:.2f}"
        doubt = None
        if self.measured.replaces and budget.confidence != "calibrated":
            reason = f"{size:.2f} GiB for the KV cache are more than can be ({account})"
            return None, f"the calibration by {self.by} is not used: {reason}; measure anew"
        if size < predicted.kv_cache - band:
            doubt = (
                f"{self.by} had {size:.2f} GiB for the KV cache, which is less than its GPU explains ({account}); see "
                "whether another process held memory of it. The plan keeps to the smaller value"
            )
        if self.measured.replaces:
            return f"KV cache {size:.2f} GiB: calibrated by {self.by}; {account}", doubt
        if size < predicted.kv_cache:
            return f"KV cache {size:.2f} GiB: no more than {self.by} had; {account}", doubt
        reason = "but not on a first boot with this context, so the prediction stands"
        return f"KV cache: {self.by} had {size:.2f} GiB, {reason}", None


class Calibration:
    """Measurements to look up by conditions."""

    def __init__(self, measurements: Sequence[Measurement] = ()) -> None:
        self._measurements = measurements

    def find(
        self, model: ModelSpec, gpu: GpuType, options: EngineOptions, conditions: Mapping[str, Any]
    ) -> Found | None:
        """What measurements say of an account under these conditions; None if there are none.

        The least of them counts, because every boot of every host has to grant it.
        """
        regime = regime_of(conditions["vllm"])
        suitable = [one for one in self._measurements if set(_differences(one, conditions)) <= {"context_length"}]
        if not suitable or isinstance(regime, Unknown):
            return None
        sizes: list[tuple[int, Measurement]] = []
        for one in suitable:
            length = one.conditions["context_length"]
            size = measured_kv_bytes(
                model,
                gpu,
                blocks=one.blocks,
                tokens=one.tokens,
                tensor=conditions["tensor"],
                options=replace(options, max_model_len=length),
                version=conditions["vllm"],
            )
            if size is None:
                return Found(one)
            sizes.append((size, one))
        alike = [(size, one) for size, one in sizes if one.conditions == conditions]
        replaces = any(one.boot == "cold" or not boots_differ(regime, options) for _, one in alike)
        size, decisive = min(alike if replaces else sizes, key=lambda pair: pair[0])
        lengths = frozenset(one.conditions["context_length"] for one in suitable)
        return Found(decisive, Measured(size, replaces), lengths)

    def unused(self, model: str, conditions: Sequence[Mapping[str, Any]]) -> str | None:
        """Why no measurement of the model called so suits any of the engines that are planned.

        None where one does, or where there is none to use.
        """
        own = [one for one in self._measurements if one.model == model]
        differing = [(one, now, _differences(one, now)) for one in own for now in conditions]
        if not differing or any(set(found) <= {"context_length"} for _, _, found in differing):
            return None
        nearest, now, found = min(differing, key=lambda candidate: len(candidate[2]))
        reasons = [
            CONDITIONS[key] + ("" if key in _DIGESTS else f" ({nearest.conditions[key]} then, {now[key]} now)")
            for key in found
        ]
        return f"the calibration by {nearest} is not used, because these differ: {', '.join(reasons)}"


def _differences(measurement: Measurement, conditions: Mapping[str, Any]) -> list[str]:
    return [key for key in CONDITIONS if measurement.conditions[key] != conditions[key]]
