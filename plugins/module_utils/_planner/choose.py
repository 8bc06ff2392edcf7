"""Chooses how one instance of a model is spread over GPUs, and what its engine is told; private to the collection.

Between the formulas (``_memory``, ``_validity``), which choose nothing, and the plan (``_plan``), which knows hosts.
:meth:`Sizer.choose` tries shapes on every kind of GPU that a model may go to. Its rules by objective:

- ``throughput``: the fewest GPUs that hold the model, so that there are as many replicas as can be;
- ``latency``: the widest tensor size that is valid inside the NVLink domain. Without NVLink, more GPUs answer
  later, not sooner, and it is as ``throughput``;
- ``balanced``: the next wider tensor size after ``throughput``'s, where NVLink joins the GPUs.

Only where no shape fits inside one host, shapes over several alike hosts are tried: tensor parallel stays inside a
domain of a host, the stages of the pipeline are dealt out to the hosts, and every host gives all it can.

A model "fits" when the promise minus the margin of :func:`~._memory.pinned_kv_bytes` holds the wished number of
requests of the wished length. A length left to the planner is the model's own, or else what fits, but at least
:data:`LEAST_CONTEXT` tokens. What fits by the promise alone is taken only where nothing else does, with a warning.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Optional

from .._errors import PlacementError, SizingError
from .._host.gpu import Gpu
from .._memory.account import Budget, Measured, memory_budget, pinned_kv_bytes
from .._memory.calibration import Calibration, Found, digest
from .._memory.catalogue import GpuType, gpu_from_nvml, gpu_type
from .._memory.engine_options import EngineOptions
from .._memory.model import ModelSpec
from .._memory.model_config import read_model
from .._memory.validity import refusals, tensor_sizes
from .._releases.regimes import Unknown, regime_of
from .._units import GIB, MIB
from .._wishes.read import Parallelism, Wish

__all__ = [
    "LEAST_CONTEXT",
    "UTILIZATION",
    "Choice",
    "Extent",
    "Misfit",
    "Pool",
    "Shape",
    "Site",
    "Sized",
    "Sizer",
    "engine_options",
    "kind_of",
    "possible",
]

LEAST_CONTEXT = 8192  # tokens; a shape that leaves less is of little use to anybody who did not ask for it
STEP = 256  # tokens; planned lengths are multiples of it
UTILIZATION = 0.92  # vLLM's own default, written out so that a new default is not a change nobody asked for
# Options of vLLM that take or give GPU memory in ways that the account does not follow.
UNACCOUNTED = (
    "cpu-offload-gb",
    "decode-context-parallel-size",
    "enable-lora",
    "kv-transfer-config",
    "num-gpu-blocks-override",
    "performance-mode",
    "speculative-config",
)
_NUMBERS = ("max-num-batched-tokens", "max-num-seqs", "block-size", "kv-cache-memory-bytes")


Extent = tuple[int, int, Optional[int]]  # GPUs, hosts and tensor size of an instance; None: not known


@dataclass(frozen=True)
class Pool:
    """What the GPUs of hosts that are alike have in common: type, link, sizes of a host's domains, driver."""

    gpu: GpuType
    nvlink: bool
    domains: tuple[int, ...]  # GPUs of each, the largest first
    driver: str | None = None  # its branch: "580"
    title: str = ""  # the driver's name of the type

    @property
    def size(self) -> int:
        """GPUs of the largest domain."""
        return max(self.domains, default=0)

    def sets(self, gpus: int) -> int:
        """Sets of so many linked GPUs that an empty host has."""
        return sum(size // gpus for size in self.domains)

    def hosts(self, parallelism: Parallelism) -> int | None:
        """The fewest hosts for an instance, each with as many of its stages; None if no domain is large enough."""
        room = self.sets(parallelism.tensor)
        stages = parallelism.pipeline
        return next((hosts for hosts in range(1, stages + 1) if stages % hosts == 0 and stages <= room * hosts), None)

    def takes(self, parallelism: Parallelism, hosts: int) -> bool:
        """Whether so many hosts have the GPUs for an instance."""
        needed = self.hosts(parallelism)
        return needed is not None and needed <= hosts


@dataclass(frozen=True)
class Site:
    """The GPUs of one type on one host; ``domains`` are the sets of them that tensor parallelism may span."""

    name: str
    host: str
    pool: Pool
    domains: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Shape:
    """How one instance of a model is spread over GPUs and alike hosts, and why so, a line for each reason."""

    parallelism: Parallelism
    hosts: int = 1
    why: tuple[str, ...] = field(default=(), compare=False)

    @property
    def gpus(self) -> int:
        """GPUs of one instance."""
        return self.parallelism.tensor * self.parallelism.pipeline

    @property
    def stages(self) -> int:
        """Pipeline stages on each of its hosts."""
        return self.parallelism.pipeline // self.hosts

    def among(self, extents: Collection[Extent]) -> bool:
        """Whether an instance of one of these extents may have this shape."""
        return any((self.gpus, self.hosts, tensor) in extents for tensor in (self.parallelism.tensor, None))

    def room(self, pool: Pool, hosts: int) -> int:
        """Instances that so many empty hosts of a kind take."""
        return hosts * (pool.sets(self.parallelism.tensor) // self.stages) // self.hosts

    def __str__(self) -> str:
        over = f" over {self.hosts} hosts" if self.hosts > 1 else ""
        return f"tensor {self.parallelism.tensor} x pipeline {self.parallelism.pipeline}{over}"


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


@dataclass(frozen=True)
class Choice:
    """The shape of a model, the sites it may go to, and its account by kind of GPU (empty: it is not sized).

    ``rejected`` are rows of the plan's key of that name, ``why`` the reasons for what the engines are told.
    """

    shape: Shape
    sites: tuple[str, ...]
    sized: Mapping[Pool, Sized] = field(default_factory=dict)
    rejected: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    why: Mapping[Pool, tuple[str, ...]] = field(default_factory=dict)


def kind_of(gpu: Gpu) -> GpuType:
    """The type of a GPU of a host; what the driver does not say is taken from the catalogue."""
    return _kind(gpu.name or "GPU without a name", gpu.total_gib, gpu.reserved_gib, gpu.compute_capability)


@cache
def _kind(name: str, total_gib: float | None, reserved_gib: float | None, compute_capability: str | None) -> GpuType:
    known = gpu_type(name)
    # Torch's total is the driver's less what it keeps for itself; where that is not told, the catalogue is nearer.
    if total_gib is None or (reserved_gib is None and known.known):
        return known
    major, _, minor = (compute_capability or "").partition(".")
    # Hundredths of a GiB: boards of one type differ by less, and alike they are sized once.
    usable = round((total_gib - (reserved_gib or 0.0)) * 100) * GIB // 100
    return gpu_from_nvml(name, usable, 0, (int(major), int(minor)) if major else None)


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


def _order(shape: Shape) -> tuple[int, int, int]:
    """The fewest GPUs first, then the fewest hosts; tensor before pipeline parallelism."""
    return shape.gpus, shape.hosts, shape.parallelism.pipeline


class Sizer:
    """Chooses shapes; what it has computed for a model on a kind of GPU, it keeps."""

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
        self._calibration = calibration or Calibration()
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
        config = {**facts["config"], **_json(wish.extra_args.get("hf-overrides"))}
        try:
            return read_model(config, headers=headers, total_bytes=facts.get("safetensors_bytes"))
        except SizingError as error:
            return Unknown(str(error))

    def choose(self, wish: Wish, sites: Sequence[Site], running: Collection[Extent] = ()) -> Choice:
        """The shape for a model on the sites it may go to.

        Where kinds of GPU would have different shapes, ``running`` (the extents that its instances have now) decides,
        so that a new kind moves nothing; else whether there is room for all replicas, then whether one host does. Then
        ``latency`` has the fewest stages and the widest tensor size; the others have the one of which the most
        instances fit or, over several hosts, the fewest GPUs.

        :raises PlacementError: no shape does on any of the sites.
        """
        hosts = Counter(site.pool for site in sites)
        pools = sorted(hosts, key=repr)
        model = self.model(wish)
        if isinstance(model, Unknown):
            return _unsized(wish, sites, running, model.reason)
        found = {pool: self._best(model, wish, pool, hosts[pool], _shapes(model, wish, pool)) for pool in pools}
        if not any(isinstance(best, Shape) for best, _ in found.values()) or any(span > 1 for _, span, _ in running):
            for pool, (best, misfits) in found.items():
                if not isinstance(best, Shape) and wish.parallelism is None:
                    shapes = _spread(model, wish, pool, hosts[pool])
                    spread, more = self._best(model, wish, pool, hosts[pool], shapes, running)
                    found[pool] = spread or best, misfits + more
        fitting = {best for best, _ in found.values() if isinstance(best, Shape)}
        misfits = [misfit for _, tried in found.values() for misfit in tried]
        if not fitting:
            unknown = [best.reason for best, _ in found.values() if isinstance(best, Unknown)]
            if unknown or not misfits:
                return _unsized(wish, sites, running, unknown[0] if unknown else "there is no GPU")
            raise PlacementError([self._refusal(model, wish, misfits, hosts)])

        def preference(shape: Shape) -> tuple[Any, ...]:
            takes = [pool for pool in pools if isinstance(self._try(model, wish, pool, shape, hosts[pool]), Sized)]
            room = sum(shape.room(pool, hosts[pool]) for pool in takes)
            best: tuple[int, ...] = (-room,) if shape.hosts == 1 else _order(shape)
            if wish.objective == "latency":
                best = (shape.hosts, shape.parallelism.pipeline, -shape.parallelism.tensor)
            return not shape.among(running), room < (wish.replicas or 1), shape.hosts > 1, best, _order(shape)

        chosen = min(fitting, key=preference)
        results = {pool: self._try(model, wish, pool, chosen, hosts[pool]) for pool in pools}
        misfits += [result for result in results.values() if isinstance(result, Misfit)]
        sized = {pool: result for pool, result in results.items() if isinstance(result, Sized)}
        return Choice(
            shape=replace(chosen, why=tuple(_why(wish, chosen, found))),
            sites=tuple(site.name for site in sites if site.pool in sized),
            sized=sized,
            rejected=tuple(_records(wish, misfits, chosen)),
            warnings=tuple(self._notes(model, wish)),
        )

    def _try(self, model: ModelSpec, wish: Wish, pool: Pool, shape: Shape, hosts: int) -> Sized | Misfit | Unknown:
        """The account of a shape on so many hosts of a kind, or why it does not do."""
        lack = _lack(shape, pool, hosts)
        if lack:
            return Misfit(shape, pool, lack)
        result = self.size(model, wish, pool, shape.parallelism)
        return replace(result, shape=shape) if isinstance(result, Misfit) else result

    def size(
        self, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism, length: int | None = None
    ) -> Sized | Misfit | Unknown:
        """The account of a GPU of an instance, or why vLLM would not run it; ``length`` is a context to plan with."""
        key = (wish.name, pool.gpu, pool.nvlink, pool.driver, parallelism, length)
        if key not in self._tried:
            self._tried[key] = _Attempt(self, model, wish, pool, parallelism).result(length)
        return self._tried[key]

    def _best(
        self,
        model: ModelSpec,
        wish: Wish,
        pool: Pool,
        hosts: int,
        shapes: Sequence[Shape],
        running: Collection[Extent] = (),
    ) -> tuple[Shape | Unknown | None, list[Misfit]]:
        """The best of the shapes by the wish's objective, and what was tried before it.

        A tight fit is the best if it is ``running``: of more hosts there may be a larger shape that is none.
        """
        tight: Shape | None = None
        misfits: list[Misfit] = []
        for shape in shapes:
            result = self._try(model, wish, pool, shape, hosts)
            if isinstance(result, Unknown):
                return result, misfits
            if isinstance(result, Misfit):
                misfits.append(result)
            elif result.sure is not None or shape.among(running):
                break
            else:
                tight = tight or shape
        else:
            return tight, misfits
        if wish.objective == "balanced" and pool.nvlink:
            wider = next((other for other in shapes if other.parallelism.tensor > shape.parallelism.tensor), None)
            if wider and wider.parallelism.pipeline == 1:
                fits = isinstance(self._try(model, wish, pool, wider, hosts), Sized)
                return wider if fits else shape, misfits
        return shape, misfits

    def _refusal(
        self, model: ModelSpec, wish: Wish, misfits: Sequence[Misfit], hosts: Mapping[Pool, int]
    ) -> dict[str, Any]:
        """The one rejected shape that came nearest, and what would let it in."""

        def distance(misfit: Misfit) -> tuple[Any, ...]:
            lack = (misfit.needed_gib or 0.0) / (misfit.available_gib or 1.0)
            return misfit.needed_gib is None, -misfit.longest, lack, _order(misfit.shape)

        nearest = min(misfits, key=distance)
        where = f"{nearest.shape} on {nearest.pool.gpu.name}"
        if nearest.longest >= STEP:
            fewer = f"{wish.where}.concurrency, or " if wish.concurrency and wish.concurrency > 1 else ""
            knob = f"Lower {fewer}{wish.where}.context_length to {nearest.longest}."
            return _record(wish, nearest, nearest_fit=f"context_length {nearest.longest} with {where}", knob=knob)
        if nearest.needed_gib is None:
            return _record(wish, nearest, nearest_fit=None, knob=f"Change {wish.where}.parallelism, or the model.")
        larger = f"take larger GPUs, or a quantised or smaller model as {wish.where}.source"
        wider = None if wish.parallelism else self._on_more_hosts(model, wish, hosts)
        if wider:
            shape, pool = wider
            lack = _lack(shape, pool, hosts[pool])
            more = "Add such hosts, or hosts with more of these GPUs"
            knob = f"{str(shape).capitalize()} would do, but {lack}. {more}; {larger}."
            return _record(wish, nearest, nearest_fit=f"{shape} on {pool.gpu.name}", knob=knob)
        times = -(-nearest.needed_gib * nearest.shape.gpus // (nearest.available_gib or 1.0))
        return _record(
            wish,
            nearest,
            nearest_fit=f"about {times:.0f} x {nearest.pool.gpu.name}",
            knob=f"It would take about {times:.0f} of them; {larger}"
            f"{', or widen its parallelism' if wish.parallelism else ''}.",
        )

    def _on_more_hosts(self, model: ModelSpec, wish: Wish, hosts: Mapping[Pool, int]) -> tuple[Shape, Pool] | None:
        """The smallest shape that would fit, were there more hosts like those that there are."""
        fitting = []
        for pool in hosts:
            for shape in _spread(model, wish, pool, len(model.layers)):
                if isinstance(self._try(model, wish, pool, shape, shape.hosts), Sized):
                    fitting.append((shape, pool))
                    break
        return min(fitting, key=lambda pair: (*_order(pair[0]), repr(pair[1])), default=None)

    def settle(self, wish: Wish, choice: Choice, used: Collection[Pool]) -> Choice:
        """The choice for the kinds of GPU that its instances really got.

        All instances of a model take requests of one length, whichever the load balancer hands them to: that of the
        kind with the least room. Warnings and reasons are about these kinds only.
        """
        model = self.model(wish)
        sized = {pool: choice.sized[pool] for pool in sorted(used, key=repr) if pool in choice.sized}
        if not sized or isinstance(model, Unknown):
            return replace(choice, sized={})
        shortest = min(sized, key=lambda pool: sized[pool].context_length)
        length = sized[shortest].context_length
        warnings = list(choice.warnings)
        conditions = [part.conditions for part in sized.values() if part.conditions is not None]
        unused = self._calibration.unused(wish.name, conditions)
        warnings += [f"{wish.name}: {unused}."] if unused else []
        why = {}
        for pool, longer in list(sized.items()):
            again = self.size(model, wish, pool, longer.parallelism, length)
            if longer.context_length > length and isinstance(again, Sized):
                sized[pool] = again
                warnings.append(
                    f"{wish.name}: context_length auto is {length} on all instances, because that is what fits "
                    f"{shortest.gpu.name}; {pool.gpu.name} could take {longer.context_length}."
                )
            warnings += _doubts(wish, pool, sized[pool])
            why[pool] = tuple(self._reasons(model, wish, pool, sized[pool]))
        # Kinds that differ in their numbers of GPUs alone have the same doubts.
        return replace(choice, sized=sized, warnings=tuple(dict.fromkeys(warnings)), why=why)

    def _reasons(self, model: ModelSpec, wish: Wish, pool: Pool, sized: Sized) -> Iterator[str]:
        """What speaks for the context, and what the number of sequences costs."""
        if wish.context_length is None and sized.context_length < model.max_len:
            yield f"context {sized.context_length:,}: what surely fits; the model itself takes {model.max_len:,}"
        elif wish.context_length is None:
            yield f"context {sized.context_length:,}: the model's own"
        if sized.calibration:
            yield sized.calibration
        seqs = sized.budget.max_num_seqs
        options = replace(engine_options(wish)[0], max_model_len=sized.context_length)
        room = [
            budget.kv_cache
            for number in ((seqs, seqs // 4) if seqs >= 256 else ())
            for budget in [self.budget(model, pool, sized.parallelism, replace(options, max_num_seqs=number))]
            if isinstance(budget, Budget)
        ]
        saved = room[-1] - room[0] if room else 0.0
        if saved >= 0.1:
            yield (
                f"max-num-seqs {seqs}: it takes memory to sample for so many requests at once; {seqs // 4} would leave "
                f"{saved:.1f} GiB more to the KV cache"
            )

    def _notes(self, model: ModelSpec, wish: Wish) -> Iterator[str]:
        yield from (f"{wish.name}: {note}." for note in model.warnings)
        strange = engine_options(wish)[1]
        if strange:
            yield f"{wish.name}: the memory account does not follow {', '.join(strange)} of extra_args."

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
        return self._calibration.find(model, pool.gpu, engine_options(wish)[0], conditions)

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

    def __init__(self, sizer: Sizer, model: ModelSpec, wish: Wish, pool: Pool, parallelism: Parallelism) -> None:
        self._sizer = sizer
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
        reasons = self._sizer.refusals(self._model, self._pool, self._parallelism, checked)
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
            budget = self._sizer.budget(self._model, self._pool, self._parallelism, options)
            self._budgets[options] = budget if changes else self._calibrated(budget, options, length)
        return self._budgets[options]

    def _calibrated(self, predicted: Budget | Unknown, options: EngineOptions, length: int) -> Budget | Unknown:
        """The account with what was measured of it."""
        found = self._sizer.found(self._model, self._wish, self._pool, self._parallelism, length)
        if found is None or isinstance(predicted, Unknown):
            return predicted
        budget = self._sizer.budget(self._model, self._pool, self._parallelism, options, found.measured)
        if isinstance(budget, Budget):
            self._said[length] = found.told(predicted, budget)
        return budget

    def _measured_lengths(self, full: int) -> Collection[int]:
        """The contexts that engines like this one were measured with: what is known best of."""
        found = self._sizer.found(self._model, self._wish, self._pool, self._parallelism, full)
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
        conditions = self._sizer.conditions(self._wish, self._pool, self._parallelism, length)
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
        if stage.weights > budget.requested * GIB:
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


def _tensor_sizes(model: ModelSpec, pool: Pool) -> list[int]:
    """Those tensor sizes that the model allows and that tile a host: powers of two, and the whole domain."""
    return [size for size in tensor_sizes(model, pool.size) if size & (size - 1) == 0 or size == pool.size] or [1]


def _shapes(model: ModelSpec, wish: Wish, pool: Pool) -> list[Shape]:
    """The shapes to try on a kind of GPU, in the order of the wish's objective: the inventory's, or those on one host.

    Pipelines inside a host come last: they are for models whose heads no larger tensor size divides.
    """
    if wish.parallelism is not None:
        return [Shape(wish.parallelism, pool.hosts(wish.parallelism) or 1)]
    valid = _tensor_sizes(model, pool)
    tensors = [Shape(Parallelism(tensor=size)) for size in valid]
    pipelines = [
        Shape(Parallelism(tensor=tensor, pipeline=stages))
        for tensor in valid
        for stages in range(2, pool.sets(tensor) + 1)
        if stages & (stages - 1) == 0 or stages == pool.sets(tensor)
    ]
    if wish.objective == "latency" and pool.nvlink:
        tensors.reverse()
    return tensors + sorted(pipelines, key=_order)


def _spread(model: ModelSpec, wish: Wish, pool: Pool, hosts: int) -> list[Shape]:
    """The shapes to try on several hosts of a kind, of so many at most, in the order of the wish's objective.

    Every host gives as many sets as it has, and there are no more hosts than so many GPUs need. So the fewest GPUs are
    on the fewest hosts, and a new host only adds shapes at the end.
    """
    shapes = []
    for number in range(2, min(hosts, len(model.layers)) + 1):
        for tensor in _tensor_sizes(model, pool):
            shape = Shape(Parallelism(tensor, number * pool.sets(tensor)), number)
            if shape.gpus > (number - 1) * sum(pool.domains) and shape.parallelism.pipeline <= len(model.layers):
                shapes.append(shape)
    if wish.objective == "latency" and pool.nvlink:
        return sorted(shapes, key=lambda shape: (shape.hosts, shape.parallelism.pipeline))
    return sorted(shapes, key=_order)


def _lack(shape: Shape, pool: Pool, hosts: int) -> str | None:
    """What so many hosts of a kind do not have for a shape."""
    tensor, sets = shape.parallelism.tensor, pool.sets(shape.parallelism.tensor)
    if not sets:
        return f"it needs {tensor} linked GPUs; there are {pool.size}"
    if sets < shape.stages:
        return f"it needs {shape.stages} x {tensor} linked GPUs on a host; there are {sets} x {tensor}"
    if hosts < shape.hosts:
        return (
            f"it needs {shape.gpus} GPUs over {shape.hosts} alike hosts; there {'are' if hosts > 1 else 'is'} {hosts}"
        )
    return None


def possible(parallelism: Parallelism, sites: Iterable[Site]) -> bool:
    """Whether there are GPUs for an instance, whatever it weighs."""
    hosts = Counter(site.pool for site in sites)
    return any(pool.takes(parallelism, number) for pool, number in hosts.items())


def _doubts(wish: Wish, pool: Pool, sized: Sized) -> Iterator[str]:
    """What an operator should know of an instance that is planned all the same."""
    if sized.doubt:
        yield f"{wish.name}: {sized.doubt}."
    if sized.sure is None:
        yield (
            f"{wish.name}: a tight fit on {pool.gpu.name}: {sized.budget.kv_cache:.1f} GiB are predicted for the KV "
            f"cache, of which {sized.budget.needed_kv * (wish.concurrency or 1):.1f} are needed; that is within the "
            f"margin of error. Lower {wish.where}.context_length, or give it more GPUs."
        )
    if sized.parallelism.tensor > 1 and not pool.nvlink:
        yield (
            f"{wish.name}: tensor {sized.parallelism.tensor} on {pool.gpu.name} goes over PCIe, which costs speed; a "
            "quantised or smaller model may do with fewer GPUs."
        )


def _why(wish: Wish, chosen: Shape, found: Mapping[Pool, tuple[Any, Sequence[Misfit]]]) -> Iterator[str]:
    """The reasons for a shape, and for more than one host."""
    pools = [pool for pool, (best, _) in found.items() if best == chosen]
    linked = any(pool.nvlink for pool in pools)
    reason = f"{wish.objective}: the fewest GPUs that hold the model"
    if wish.parallelism is not None:
        reason = "as the inventory says"
    elif wish.objective == "latency" and linked:
        size = max(pool.size for pool in pools)
        reason = f"latency: the widest tensor size that is valid inside the NVLink domain of {size}"
    elif wish.objective == "balanced" and linked and chosen.hosts == 1 and chosen.parallelism.tensor > 1:
        reason = "balanced: one tensor size wider than the fewest GPUs that hold the model, where there is one"
    yield f"{chosen}: {reason}"
    if chosen.hosts > 1:
        alone = [misfit for pool in pools for misfit in found[pool][1] if misfit.shape.hosts == 1]
        widest = max(alone, key=lambda misfit: (misfit.shape.gpus, misfit.shape.parallelism.tensor), default=None)
        lack = f"on one ({widest.shape}) {widest.reason}" if widest else "one does not have the GPUs"
        yield f"pipeline {chosen.parallelism.pipeline} over {chosen.hosts} hosts: {lack}"


def _records(wish: Wish, misfits: Sequence[Misfit], chosen: Shape) -> Iterator[dict[str, Any]]:
    """Rows of the plan's ``rejected``: what was considered before the choice, once per shape and type of GPU."""
    seen = set()
    for misfit in misfits:
        key = (misfit.shape, misfit.pool.gpu.name, misfit.needed_gib)
        if key not in seen:
            seen.add(key)
            knob = "A quantised or smaller model would need less."
            if misfit.longest >= STEP:
                knob = f"With {wish.where}.context_length up to {misfit.longest} it would fit."
            elif misfit.needed_gib is None:
                knob = f"Another {wish.where}.parallelism may do there."
            yield _record(wish, misfit, nearest_fit=str(chosen), knob=knob)


def _record(wish: Wish, misfit: Misfit, *, nearest_fit: str | None, knob: str) -> dict[str, Any]:
    return {
        "model": wish.name,
        "shape": f"{misfit.shape} on {misfit.pool.gpu.name}",
        "reason": f"{misfit.reason}.",
        "needed_gib": misfit.needed_gib,
        "available_gib": misfit.available_gib,
        "nearest_fit": nearest_fit,
        "knob": knob,
    }


def _unsized(wish: Wish, sites: Sequence[Site], running: Collection[Extent], reason: str) -> Choice:
    """What is planned without an account: the inventory's shape, or one GPU."""
    hosts = Counter(site.pool for site in sites)
    parallelism = wish.parallelism or Parallelism()
    shapes = [Shape(parallelism, pool.hosts(parallelism) or 1) for pool in hosts]
    shapes = [shape for shape in shapes if any(not _lack(shape, pool, number) for pool, number in hosts.items())]
    shape = min(shapes, key=lambda shape: (not shape.among(running), shape.hosts), default=Shape(parallelism))
    warning = f"{wish.name}: it is not sized, because {reason}; whether it fits is not checked"
    if wish.parallelism is None:
        warning += f", and it gets one GPU: set {wish.where}.parallelism if that is too little"
    sites_of = tuple(site.name for site in sites if not _lack(shape, site.pool, hosts[site.pool]))
    why = f"{shape}: {'as the inventory says' if wish.parallelism else 'it is not sized'}"
    return Choice(replace(shape, why=(why,)), sites_of, warnings=(f"{warning}.",))
