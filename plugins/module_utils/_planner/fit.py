"""Whether a shape of a model fits a kind of GPU, and with which context: the account of one shape; private.

A model "fits" when the promise minus the margin of :func:`~._memory.account.pinned_kv_bytes` holds the wished number of
requests of the wished length. A length left to the planner is the model's own, or else what fits, but at least
:data:`LEAST_CONTEXT` tokens. What fits by the promise alone is taken only where nothing else does, with a warning.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._errors import SizingError
from .._memory.account import Budget, Measured, memory_budget, pinned_kv_bytes
from .._memory.calibration import Calibration, Found, digest
from .._memory.class_defaults import overridden
from .._memory.engine_options import EngineOptions
from .._memory.model import ModelSpec
from .._memory.model_config import read_model
from .._memory.validity import refusals
from .._releases.regimes import Unknown, regime_of
from .._units import GIB, MIB
from .._wishes.read import Parallelism, Wish
from .hosts import Pool
from .shapes import Shape, lack
from .task import POOLS, options_for, task_of

__all__ = ["LEAST_CONTEXT", "STEP", "UTILIZATION", "Accounts", "Misfit", "Sized", "engine_options"]

LEAST_CONTEXT = 8192  # tokens; a shape that leaves less is of little use to anybody who did not ask for it
LEFT = 0.3  # GiB of a GPU that CUDA's context takes before vLLM starts
STEP = 256  # tokens; planned lengths are multiples of it
UTILIZATION = 0.92  # vLLM's own default, written out so that a new default is not a change nobody asked for
# Options of vLLM that take or give GPU memory in ways that the account does not follow.
UNACCOUNTED = (
    "cpu-offload-gb",
    "decode-context-parallel-size",
    "enable-tower-connector-lora",
    "fully-sharded-loras",
    "kv-transfer-config",
    "lora-target-modules",
    "num-gpu-blocks-override",
    "performance-mode",
    "speculative-config",
)
_NUMBERS = (
    "max-num-batched-tokens",
    "max-num-seqs",
    "block-size",
    "kv-cache-memory-bytes",
    "max-loras",
    "max-lora-rank",
)
_VLLM_SLOTS, _VLLM_RANK = 1, 16  # what vLLM takes without max-loras and max-lora-rank (config/lora.py)


@dataclass(frozen=True)
class Sized:
    """The account of a shape on a kind of GPU.

    ``budget`` is the prediction at a context of ``context_length`` tokens. ``sure`` is the same with the KV cache
    ``sure_bytes`` large, a margin below it: what every boot can grant; None where that does not hold the wish.
    ``conditions`` are those under which a measurement would tell of it (None: it cannot be measured), ``calibration``
    says what measurements did to it, and ``doubt`` what is wrong with them.
    """

    parallelism: Parallelism
    context_length: int
    budget: Budget
    sure: Budget | None
    sure_bytes: int
    conditions: Mapping[str, Any] | None = None
    calibration: str | None = None
    doubt: str | None = None


@dataclass(frozen=True)
class Misfit:
    """A shape that does not do on a kind of GPU, and why; sizes are GiB per GPU where memory is the reason."""

    shape: Shape
    pool: Pool
    reason: str
    needed_gib: float | None = None
    available_gib: float | None = None
    longest: int = 0  # tokens of context with which it would fit


def engine_options(wish: Wish) -> tuple[EngineOptions, list[str]]:
    """The options that memory depends on, and the names of those in ``extra_args`` that the account does not follow."""
    given = wish.extra_args
    numbers = {name: _number(given[name]) for name in _NUMBERS if name in given}
    strange = [name for name in UNACCOUNTED if name in given]
    strange += [name for name, value in numbers.items() if value is None]
    images = _json(given.get("limit-mm-per-prompt"))
    options = EngineOptions(
        dtype=str(given.get("dtype", "auto")),
        kv_cache_dtype=wish.kv_cache_dtype or "auto",
        max_num_batched_tokens=numbers.get("max-num-batched-tokens"),
        max_num_seqs=wish.concurrency or numbers.get("max-num-seqs"),
        gpu_memory_utilization=wish.gpu_memory_utilization or UTILIZATION,
        enforce_eager=bool(given.get("enforce-eager", False)),
        quantization=given.get("quantization"),
        block_size=numbers.get("block-size"),
        kv_cache_memory_bytes=numbers.get("kv-cache-memory-bytes"),
        prefix_caching=bool(given.get("enable-prefix-caching", True)),
        hybrid_manager=not given.get("disable-hybrid-kv-cache-manager", False),
        mm_limit_zero=bool(given.get("language-model-only")) or (bool(images) and not any(images.values())),
        async_scheduling=bool(given.get("async-scheduling", True)),
        lora_slots=(numbers.get("max-loras") or _VLLM_SLOTS) if given.get("enable-lora") else 0,
        lora_rank=(numbers.get("max-lora-rank") or _VLLM_RANK) if given.get("enable-lora") else 0,
    )
    return options, strange


def _number(value: Any) -> int | None:
    """A whole number as it is; None for the abbreviations that vLLM knows besides (``25.6k``)."""
    return int(value) if str(value).isdecimal() else None


def _json(value: Any) -> Mapping[str, Any]:
    """A mapping that is given as such or as JSON text; an empty one for anything else."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}


class Accounts:
    """The accounts of shapes of models on kinds of GPU; what it has computed it keeps."""

    def __init__(
        self,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        version: str = "",
        calibration: Calibration | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        """``facts`` are those of ``model_facts``, by the name of the model; ``version`` is vLLM's.

        ``environment`` is what all engines get besides the model's own; it decides which measurements are of use.
        """
        self._facts = facts or {}
        self._version = version
        self.calibration = calibration or Calibration()
        self._environment = environment or {}
        self._digests: dict[str, dict[str, str]] = {}
        self._models: dict[str, ModelSpec | Unknown] = {}
        self._tried: dict[tuple[Any, ...], Sized | Misfit | Unknown] = {}
        # vLLM's CPU build runs on no GPU: the accounts are what the same release would do on these GPUs, and no driver
        # matters to it.
        self.on_gpus = not version.endswith("+cpu")

    def model(self, wish: Wish) -> ModelSpec | Unknown:
        """The model of a wish, or why it cannot be sized."""
        if wish.name not in self._models:
            self._models[wish.name] = self._read(wish)
        return self._models[wish.name]

    def reread(self, wish: Wish) -> ModelSpec | Unknown:
        """The model of a wish that somebody might have, whatever is known of one of its name."""
        return self._read(wish)

    def trial(
        self, model: ModelSpec, wish: Wish, pool: Pool, shape: Shape, host_count: int
    ) -> Sized | Misfit | Unknown:
        """As :meth:`attempt`, for a wish that somebody might have: nothing of it is kept."""
        missing = lack(shape, pool, host_count)
        if missing:
            return Misfit(shape, pool, missing)
        return _Attempt(self, model, wish, pool, shape.parallelism).result(None)

    def was_read(self, wish: Wish) -> bool:
        """Whether there is a configuration of its model, understood or not."""
        return "config" in self._facts.get(wish.name, {})

    def _read(self, wish: Wish) -> ModelSpec | Unknown:
        facts = self._facts.get(wish.name)
        if facts is None:
            return Unknown("its files were not read")
        if "config" not in facts:
            return Unknown(facts.get("problem") or "its facts have no config")
        regime = regime_of(self._version)
        if isinstance(regime, Unknown):
            return regime
        # Patterns stand for many tensors; only their bytes and whether a name is a tower's matter.
        headers = {
            f"{number}.{tensor['name']}": {"data_offsets": (0, tensor["bytes"])}
            for number, tensor in enumerate(facts.get("tensors") or ())
        }
        overrides = _json(wish.extra_args.get("hf-overrides"))
        size = facts.get("safetensors_bytes")
        try:
            model = read_model(overridden(facts["config"], overrides), headers=headers, total_bytes=size)
        except SizingError as error:
            told = f"with {wish.where}.extra_args.hf-overrides, " if overrides else ""
            return Unknown(f"{told}{error}")
        model = replace(model, max_len=self._longest(wish, model, facts))
        if wish.source.startswith("/") and facts.get("path") and facts.get("bytes_from") == "none":
            empty = f"there are no weights in {wish.source}: they are counted by its configuration"
            return replace(model, warnings=(*model.warnings, empty))
        return model

    def _longest(self, wish: Wish, model: ModelSpec, facts: Mapping[str, Any]) -> int:
        """The longest context in tokens, with what other files than the configuration say of it.

        Source: vLLM 0.33 ``config/model.py``, ``get_and_verify_max_len``: the tokenizer's counts for models that pool
        and have absolute positions, that of sentence-transformers for any.
        """
        length, tokenizer = model.max_len, facts.get("tokenizer_length")
        absolute = facts["config"].get("position_embedding_type") == "absolute"
        if tokenizer and absolute and self.task(wish) in POOLS:
            length = min(length, int(tokenizer))
        return int(facts.get("max_seq_length") or length)

    def attempt(
        self, model: ModelSpec, wish: Wish, pool: Pool, shape: Shape, host_count: int
    ) -> Sized | Misfit | Unknown:
        """The account of a shape on so many hosts of a kind, or why it does not do."""
        missing = lack(shape, pool, host_count)
        if missing:
            return Misfit(shape, pool, missing)
        result = self.size(model, wish, pool, shape.parallelism)
        return replace(result, shape=shape) if isinstance(result, Misfit) else result

    def task(self, wish: Wish) -> str:
        """What the model does; see :func:`~.task.task_of`."""
        return self._task(wish, wish.task)

    def task_options(self, wish: Wish) -> dict[str, str]:
        """The options of vLLM that make the model do what the wish states, where it would not by itself."""
        return options_for(wish.task, self._task(wish, None))

    def _task(self, wish: Wish, stated: str | None) -> str:
        facts = self._facts.get(wish.name) or {}
        config = overridden(facts.get("config") or {}, _json(wish.extra_args.get("hf-overrides")))
        return task_of(config, wish.extra_args, embeds=bool(facts.get("embeds")), stated=stated)

    def size(
        self, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism, length: int | None = None
    ) -> Sized | Misfit | Unknown:
        """The account of a GPU of an instance, or why vLLM would not run it; ``length`` is a context to plan with."""
        key = (wish.name, pool.gpu, pool.nvlink, pool.driver, parallelism, length)
        if key not in self._tried:
            self._tried[key] = _Attempt(self, model, wish, pool, parallelism).result(length)
        return self._tried[key]

    def budget(
        self,
        model: ModelSpec,
        pool: Pool,
        parallelism: Parallelism,
        options: EngineOptions,
        measured: Measured | None = None,
    ) -> Budget | Unknown:
        """The formulas' answer for a shape, with what was ``measured`` of it."""
        return memory_budget(
            model,
            pool.gpu,
            tensor=parallelism.tensor,
            pipeline=parallelism.pipeline,
            options=replace(options, expert_parallel=parallelism.expert),
            version=self._version,
            nvlink=pool.nvlink,
            measured=measured,
        )

    def conditions(self, wish: Wish, pool: Pool, parallelism: Parallelism, length: int) -> dict[str, Any] | None:
        """All that the memory of an engine depends on; None where a measurement would not tell it.

        That is the CPU build, options that the account does not follow, a cache of a size that is given, and a
        pipeline, whose engine reports the blocks of its least stage only.
        """
        options, strange = engine_options(wish)
        if not self.on_gpus or strange or options.kv_cache_memory_bytes or parallelism.pipeline > 1:
            return None
        if wish.name not in self._digests:
            facts = self._facts.get(wish.name, {})
            parts = [facts.get(key) for key in ("config", "tensors", "safetensors_bytes")]
            given = [wish.gpu_memory_utilization, wish.kv_cache_dtype, wish.concurrency, wish.extra_args]
            self._digests[wish.name] = {
                "model": digest(wish.source, wish.revision, *parts),
                "options": digest(*given, {**self._environment, **wish.env}),
            }
        return {
            **self._digests[wish.name],
            "vllm": self._version,
            "gpu": pool.gpu.name,
            "total_gib": round(pool.gpu.total_gib or 0.0, 2),
            "nvlink": pool.nvlink and parallelism.tensor > 1,
            "driver": pool.driver,
            "tensor": parallelism.tensor,
            "expert": parallelism.expert,
            "context_length": length,
        }

    def found(self, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism, length: int) -> Found | None:
        """What measurements say of an account."""
        conditions = self.conditions(wish, pool, parallelism, length)
        if conditions is None:
            return None
        return self.calibration.find(model, pool.gpu, engine_options(wish)[0], conditions)

    def refusals(self, model: ModelSpec, pool: Pool, parallelism: Parallelism, options: EngineOptions) -> list[str]:
        """Why vLLM would not run a shape, memory apart."""
        return refusals(
            model,
            pool.gpu,
            parallelism.tensor,
            parallelism.pipeline,
            options=replace(options, expert_parallel=parallelism.expert),
            version=self._version,
            driver=pool.driver if self.on_gpus else None,
        )


class _Attempt:
    """One shape of one model on one kind of GPU."""

    def __init__(self, accounts: Accounts, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism) -> None:
        self._accounts = accounts
        self._model = model
        self._wish = wish
        self._pool = pool
        self._parallelism = parallelism
        self._options = engine_options(wish)[0]
        self._requests = wish.concurrency or 1
        self._budgets: dict[EngineOptions, Budget | Unknown] = {}
        self._said: dict[int, tuple[str | None, str | None]] = {}  # what measurements did and what is wrong, by length

    def result(self, length: int | None) -> Sized | Misfit | Unknown:
        """The account at the context that is wished, given, or found."""
        wished = self._wish.context_length or length
        full = wished or self._model.max_len
        # With this variable vLLM runs a model beyond its own length.
        long = self._wish.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1"
        checked = replace(self._options, max_model_len=None if long else wished)
        reasons = self._accounts.refusals(self._model, self._pool, self._parallelism, checked)
        if reasons:
            return Misfit(Shape(self._parallelism), self._pool, "; ".join(reasons))
        sized = self._at(full)
        if isinstance(sized, Unknown) or (sized and (wished or sized.sure)):
            return sized
        longest = self._longest(full)
        least = wished or min(full, STEP if self._wish.parallelism else LEAST_CONTEXT)
        lengths = () if wished else sorted({longest, *self._measured_lengths(full)}, reverse=True)
        shorter = [self._at(other) for other in lengths if least <= other < full]
        fitting = [other for other in shorter if isinstance(other, Sized)]
        best = next((other for other in fitting if other.sure), None)
        return best or next(iter(fitting), None) or sized or self._misfit(least, longest)

    def _budget(self, length: int, **changes: Any) -> Budget | Unknown:
        options = replace(self._options, max_model_len=length, **changes)
        if options not in self._budgets:
            budget = self._accounts.budget(self._model, self._pool, self._parallelism, options)
            self._budgets[options] = budget if changes else self._calibrated(budget, options, length)
        return self._budgets[options]

    def _calibrated(self, predicted: Budget | Unknown, options: EngineOptions, length: int) -> Budget | Unknown:
        """The account with what was measured of it."""
        found = self._accounts.found(self._model, self._wish, self._pool, self._parallelism, length)
        if found is None or isinstance(predicted, Unknown):
            return predicted
        budget = self._accounts.budget(self._model, self._pool, self._parallelism, options, found.measured)
        if isinstance(budget, Budget):
            self._said[length] = found.told(predicted, budget)
        return budget

    def _measured_lengths(self, full: int) -> Collection[int]:
        """The contexts that engines like this one were measured with: what is known best of."""
        found = self._accounts.found(self._model, self._wish, self._pool, self._parallelism, full)
        return found.lengths if found else ()

    def _at(self, length: int) -> Sized | Unknown | None:
        """The account at a context; None if it does not fit."""
        budget = self._budget(length)
        if isinstance(budget, Unknown):
            return budget
        if not self._holds(budget):
            return None
        sure: Budget | Unknown = budget
        size = self._options.kv_cache_memory_bytes or 0
        if not size and budget.kv_cache_tokens:  # a model without a cache has none to hold
            size = pinned_kv_bytes(budget) // MIB * MIB
            sure = self._budget(length, kv_cache_memory_bytes=max(1, size))
        held = sure if isinstance(sure, Budget) and self._holds(sure) else None
        conditions = self._accounts.conditions(self._wish, self._pool, self._parallelism, length)
        return Sized(self._parallelism, length, budget, held, size, conditions, *self._said.get(length, (None, None)))

    def _holds(self, budget: Budget) -> bool:
        """Whether the engine starts, and the wished number of full requests fits at once."""
        return budget.fits and (self._requests == 1 or budget.max_concurrency >= self._requests)

    def _longest(self, full: int) -> int:
        """The longest context in steps that surely fits; 0 if none does."""
        budget = self._budget(full)
        size = pinned_kv_bytes(budget) // self._requests if isinstance(budget, Budget) else 0
        fitted = self._budget(full, auto_length=True, kv_cache_memory_bytes=size) if size else None
        return fitted.max_model_len // STEP * STEP if isinstance(fitted, Budget) and fitted.fits else 0

    def _misfit(self, length: int, longest: int) -> Misfit | Unknown:
        budget = self._budget(length)
        if isinstance(budget, Unknown):
            return budget
        stage = min(budget.stages, key=lambda part: part.kv_cache)
        fixed = stage.weights + stage.activations + stage.cuda_graphs + stage.non_torch + stage.cold_compile
        margin = budget.limiting_kv_bytes / GIB - pinned_kv_bytes(budget) / GIB if budget.fits else 0.0
        needed = fixed / GIB + budget.needed_kv * self._requests + margin
        requests = f"{self._requests} requests" if self._requests > 1 else "one request"
        pinned = self._options.kv_cache_memory_bytes or 0
        if pinned and fixed + pinned > (budget.total - LEFT) * GIB:
            needed = (fixed + pinned) / GIB
            reason = (
                f"{self._wish.where}.extra_args.kv-cache-memory-bytes asks for {pinned / GIB:.1f} GiB per GPU beside "
                f"{fixed / GIB:.1f} GiB for the weights and running them"
            )
        elif stage.weights > budget.requested * GIB:
            reason = f"the weights alone take {stage.weights / GIB:.1f} GiB per GPU"
        else:
            parts = [f"weights {stage.weights / GIB:.1f}", f"running them {(fixed - stage.weights) / GIB:.1f}"]
            parts += [f"{requests} of {length:,} tokens {budget.needed_kv * self._requests:.1f}"]
            parts += [f"a margin for the error of these numbers {margin:.1f}"] if margin else []
            reason = f"it needs {needed:.1f} GiB per GPU ({', '.join(parts)})"
        return Misfit(
            Shape(self._parallelism),
            self._pool,
            f"{reason}; vLLM may use {budget.requested:.1f} GiB",
            round(needed, 2),
            round(budget.requested, 2),
            longest,
        )
