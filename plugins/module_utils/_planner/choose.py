"""Chooses how one instance of a model is spread over GPUs, and what its engine is told; private to the collection.

Between the formulas (``_memory``, ``_speed``), which choose nothing, and the plan (``plan``), which knows hosts.
:meth:`Sizer.choose` tries shapes on every kind of GPU that a model may go to. Its rules by objective:

- ``latency``: the shape with the most tokens/s of one request, by prediction;
- ``throughput``: the fewest GPUs that hold the model, so that there are as many replicas as can be, or a wider tensor
  size over NVLink that serves clearly more for each GPU. Over PCIe the prediction cannot tell tensor sizes apart, and
  of measured ones replicas win mostly;
- ``balanced``: the most of both, tokens/s of one request times tokens/s for each GPU at full load; over PCIe as
  ``throughput``.

Kinds of GPU without known rates have the fewest GPUs, and with ``latency`` the widest tensor size inside NVLink.

Only where no shape fits inside one host, shapes over several alike hosts are tried: tensor parallel stays inside a
domain of a host, the stages of the pipeline are dealt out to the hosts, and every host gives all it can. A tensor size
that the inventory states may go over hosts, if no host has the GPUs for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._errors import PlacementError
from .._memory.account import Budget
from .._memory.model import ModelSpec
from .._releases.regimes import Unknown
from .._wishes.read import Parallelism, Wish
from .fit import Accounts, Misfit, Sized, engine_options
from .hosts import Extent, Pool, Site
from .refuse import considered, nothing_fits, unknown_need
from .shapes import Shape, lack, on_one_host, on_several_hosts, order, stated
from .speed import OUTPUT, PROMPT, Speed, Speeds, rates, speed_class

__all__ = ["Choice", "Sizer"]


@dataclass(frozen=True)
class Choice:
    """The shape of a model, the sites it may go to, and its account by kind of GPU (empty: it is not sized).

    ``fitting`` are the accounts of all kinds of GPU that take the shape; ``whole`` tells that these sites are of all of
    them with room for the context. ``speeds`` are predicted where the rates of a GPU are known, ``ranks`` the same as
    classes by site. ``rejected`` are rows of the plan's key of that name, ``why`` the reasons for what the engines are
    told. ``instead`` are the choices for when there is no room for this one, the best first.
    """

    shape: Shape
    sites: tuple[str, ...]
    sized: Mapping[Pool, Sized] = field(default_factory=dict)
    rejected: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    why: Mapping[Pool, tuple[str, ...]] = field(default_factory=dict)
    fitting: Mapping[Pool, Sized] = field(default_factory=dict)
    whole: bool = True
    speeds: Mapping[Pool, Speed] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    instead: tuple[Choice, ...] = ()

    def promises(self, other: Choice) -> bool:
        """Whether it has as long a context as another, and is as sure to fit."""
        own, least = self.sized.values(), min((part.context_length for part in other.sized.values()), default=0)
        sure = all(part.sure is not None for part in own) or any(part.sure is None for part in other.sized.values())
        return sure and min((part.context_length for part in own), default=0) >= least


FULL = 256  # requests at once, beyond which more of them hardly share a step better
WIDER = 1.1  # by what factor a wider shape has to serve more for each GPU: predictions are no better


class Sizer:
    """Chooses shapes; what it has computed for a model on a kind of GPU, it keeps."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self._accounts = accounts or Accounts()
        self._speeds = Speeds()
        self.on_gpus = self._accounts.on_gpus

    def task(self, wish: Wish) -> str:
        """What the model of a wish does; see :data:`~.task.TASKS`."""
        return self._accounts.task(wish)

    def task_options(self, wish: Wish) -> dict[str, str]:
        """The options that make it do what the wish states, where it would not by itself."""
        return self._accounts.task_options(wish)

    def choose(
        self,
        wish: Wish,
        sites: Sequence[Site],
        running: Collection[Extent] = (),
        standing: Collection[str] = (),
    ) -> Choice:
        """The shape for a model on the sites it may go to, with others for when there is no room for it.

        Where kinds of GPU would have different shapes, ``running`` (the extents that its instances have now) decides,
        so that a new kind moves nothing; else whether there is room for all replicas, then whether one host does, then
        the objective. A context that is left to the planner is the longest of any kind of GPU: kinds with room for less
        take part only if instances are there (``standing``, by site), or replicas have no room without them.

        :raises PlacementError: no shape does on any of the sites, or nobody can say which does.
        """
        host_counts = Counter(site.pool for site in sites)
        pools = sorted(host_counts, key=repr)
        model = self._accounts.model(wish)
        if isinstance(model, Unknown):
            return self._unsized(wish, sites, running, model.reason)
        found = {
            pool: self._best(
                model,
                wish,
                pool,
                host_counts[pool],
                [stated(wish.parallelism, pool, pools)] if wish.parallelism else on_one_host(model, wish, pool),
            )
            for pool in pools
        }
        if not any(isinstance(best, Shape) for best, _ in found.values()) or any(span > 1 for _, span, _ in running):
            for pool, (best, misfits) in found.items():
                if not isinstance(best, Shape) and wish.parallelism is None:
                    shapes = on_several_hosts(model, wish, pool, host_counts[pool])
                    spread, more = self._best(model, wish, pool, host_counts[pool], shapes, running)
                    found[pool] = spread or best, misfits + more
        fitting = {best for best, _ in found.values() if isinstance(best, Shape)}
        misfits = [misfit for _, tried in found.values() for misfit in tried]
        if not fitting:
            unknown = [best.reason for best, _ in found.values() if isinstance(best, Unknown)]
            if unknown or not misfits:
                return self._unsized(wish, sites, running, unknown[0] if unknown else "there is no GPU")
            raise PlacementError([nothing_fits(self._accounts, model, wish, misfits, host_counts)])

        choices = [
            choice
            for shape in fitting
            for length in self._lengths(model, wish, shape, host_counts)
            for choice in self._choices(model, wish, sites, shape, length, found)
        ]
        first, *others = sorted(choices, key=lambda choice: _preference(wish, choice, host_counts, running, standing))
        return replace(first, instead=tuple(others))

    def _lengths(self, model: ModelSpec, wish: Wish, shape: Shape, host_counts: Mapping[Pool, int]) -> list[int]:
        """The contexts that a shape has on kinds of GPU, the longest first."""
        results = (self._accounts.attempt(model, wish, pool, shape, number) for pool, number in host_counts.items())
        return sorted({result.context_length for result in results if isinstance(result, Sized)}, reverse=True)

    def _choices(
        self,
        model: ModelSpec,
        wish: Wish,
        sites: Sequence[Site],
        shape: Shape,
        length: int,
        found: Mapping[Pool, tuple[Any, Sequence[Misfit]]],
    ) -> Iterator[Choice]:
        """A shape on the kinds of GPU that have room for a context, on the faster ones alone, and on any one."""
        host_counts = Counter(site.pool for site in sites)
        results = {pool: self._accounts.attempt(model, wish, pool, shape, host_counts[pool]) for pool in found}
        fitting = {pool: result for pool, result in results.items() if isinstance(result, Sized)}
        sized = {pool: result for pool, result in fitting.items() if result.context_length >= length}
        misfits = [misfit for _, tried in found.values() for misfit in tried]
        misfits += [result for result in results.values() if isinstance(result, Misfit)]
        predicted = {pool: self._speeds.of(model, wish, pool, part) for pool, part in sized.items()}
        speeds = {pool: speed for pool, speed in predicted.items() if speed is not None}
        classes = {pool: speed_class(speed.value(wish.objective)) for pool, speed in speeds.items()}
        steps = sorted(set(classes.values()), reverse=True)
        sure = [pool for pool, part in sized.items() if part.sure is not None]
        ways = [[pool for pool in sure if classes.get(pool, 0) >= limit] for limit in [*steps, 0]] + [list(sized)]
        ways += [[pool] for pool in sure]
        for number, used in enumerate(ways):
            if not used or used in ways[:number]:
                continue
            yield Choice(
                shape=replace(shape, why=tuple(_over_several(shape, found))),
                sites=tuple(site.name for site in sites if site.pool in used),
                sized={pool: sized[pool] for pool in used},
                rejected=tuple(considered(wish, misfits, shape)),
                warnings=(
                    *self._notes(model, wish),
                    *_over_hosts(wish, shape),
                ),
                fitting=fitting,
                whole=len(used) in (len(sure), len(sized)),
                speeds={pool: speeds[pool] for pool in used if pool in speeds},
                ranks={site.name: classes[site.pool] for site in sites if site.pool in used and site.pool in classes},
            )

    def _best(
        self,
        model: ModelSpec,
        wish: Wish,
        pool: Pool,
        host_count: int,
        shapes: Sequence[Shape],
        running: Collection[Extent] = (),
    ) -> tuple[Shape | Unknown | None, list[Misfit]]:
        """The best of the shapes by the wish's objective, and what was tried before it.

        A tight fit is the best if it is ``running``: of more hosts there may be a larger shape that is none.
        """
        if wish.objective == "latency" and wish.parallelism is None and rates(pool):
            shapes = sorted(
                shapes, key=lambda shape: (shape.host_count, -self._speeds.decode(model, wish, pool, shape.parallelism))
            )
        tight: Shape | None = None
        misfits: list[Misfit] = []
        for shape in shapes:
            result = self._accounts.attempt(model, wish, pool, shape, host_count)
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
        if wish.objective != "latency" and wish.parallelism is None and pool.nvlink and shape.host_count == 1:
            shape = self._wider(model, wish, pool, host_count, shape, shapes)
        return shape, misfits

    def _wider(
        self, model: ModelSpec, wish: Wish, pool: Pool, host_count: int, least: Shape, shapes: Sequence[Shape]
    ) -> Shape:
        """The shape that does best by the objective for each GPU, from the least one that holds the model on."""
        clearly = WIDER if wish.objective == "throughput" else 1.0
        best, most = least, self._value(model, wish, pool, host_count, least)[0] * clearly
        for shape in shapes:
            wider = shape.parallelism.tensor > least.parallelism.tensor and shape.parallelism.pipeline == 1
            if not wider or not most:
                continue
            value, speed = self._value(model, wish, pool, host_count, shape)
            if value > most:
                best, most = shape, value
            if wish.objective == "throughput" and speed and speed.requests >= FULL:
                break  # more memory serves no more
        return best

    def _value(
        self, model: ModelSpec, wish: Wish, pool: Pool, host_count: int, shape: Shape
    ) -> tuple[float, Speed | None]:
        """What the objective finds for each GPU, 0 for what does not fit; and the speed."""
        result = self._accounts.attempt(model, wish, pool, shape, host_count)
        speed = self._speeds.of(model, wish, pool, result) if isinstance(result, Sized) else None
        return (speed.value(wish.objective, shape.gpu_count) if speed else 0.0), speed

    def _why(self, model: ModelSpec, wish: Wish, pool: Pool, shape: Shape) -> str:
        """The reason for a shape on a kind of GPU."""
        sized = self._accounts.size(model, wish, pool, shape.parallelism)
        speed = self._speeds.of(model, wish, pool, sized) if isinstance(sized, Sized) else None
        reason = "the fewest GPUs that hold the model"
        if wish.parallelism is not None:
            return f"{shape}: as the inventory says"
        if wish.objective == "latency" and speed:
            reason = f"{speed.decode:.0f} tokens/s for one request on {pool.gpu.name}"
        elif wish.objective == "latency" and pool.nvlink and shape.host_count == 1:
            reason = f"the widest tensor size that is valid inside the NVLink domain of {pool.size}"
        other = self._narrower(model, wish, pool, shape) if speed and shape.host_count == 1 else None
        if other and speed:
            narrow, slower = other
            if wish.objective == "latency":
                reason += f"; {narrow} has {slower.decode:.0f}"
            else:
                each, less = speed.throughput / shape.gpu_count, slower.throughput / narrow.gpu_count
                reason = (
                    f"{each:,.0f} tokens/s for each GPU of {pool.gpu.name} at full load and {speed.decode:.0f} for "
                )
                reason += f"one request; {narrow} has {less:,.0f} and {slower.decode:.0f}"
        return f"{shape}: {wish.objective}: {reason}"

    def _narrower(self, model: ModelSpec, wish: Wish, pool: Pool, chosen: Shape) -> tuple[Shape, Speed] | None:
        """The widest shape with fewer GPUs that surely fits as well, and its speed."""
        found = None
        for shape in on_one_host(model, wish, pool):
            if shape.parallelism.pipeline == 1 and shape.gpu_count < chosen.gpu_count:
                result = self._accounts.attempt(model, wish, pool, shape, 1)
                speed = self._speeds.of(model, wish, pool, result) if isinstance(result, Sized) else None
                if isinstance(result, Sized) and result.sure is not None and speed:
                    found = shape, speed
        return found

    def _unsized(self, wish: Wish, sites: Sequence[Site], running: Collection[Extent], reason: str) -> Choice:
        """What is planned without an account: the inventory's shape or, where hosts have one GPU each, that GPU.

        :raises PlacementError: there are several shapes, or the model is not known; a guess would be worth nothing.
        """
        read = self._accounts.was_read(wish)
        alone = read and all(sum(site.pool.domains) == 1 for site in sites)
        if wish.parallelism is None and not alone:
            raise PlacementError([unknown_need(wish, reason, read=read)])
        return _without_account(wish, sites, running, reason)

    def settle(self, wish: Wish, choice: Choice, used: Collection[Pool]) -> Choice:
        """The choice for the kinds of GPU that its instances really got.

        All instances of a model take requests of one length, whichever the load balancer hands them to: that of the
        kind with the least room. Warnings and reasons are about these kinds only.
        """
        model = self._accounts.model(wish)
        sized = {pool: choice.sized[pool] for pool in sorted(used, key=repr) if pool in choice.sized}
        if not sized or isinstance(model, Unknown):
            return replace(choice, sized={})
        shortest = min(sized, key=lambda pool: sized[pool].context_length)
        length = sized[shortest].context_length
        warnings = list(choice.warnings)
        conditions = [part.conditions for part in sized.values() if part.conditions is not None]
        unused = self._accounts.calibration.unused(wish.name, conditions)
        warnings += [f"{wish.name}: {unused}."] if unused else []
        why = {}
        for pool, longer in list(sized.items()):
            again = self._accounts.size(model, wish, pool, longer.parallelism, length)
            if longer.context_length > length and isinstance(again, Sized):
                sized[pool] = again
                warnings.append(
                    f"{wish.name}: context_length auto is {length} on all instances, because that is what fits "
                    f"{shortest.gpu.name}; {pool.gpu.name} could take {longer.context_length}."
                )
            warnings += _doubts(wish, pool, sized[pool])
            reasons = self._reasons(model, wish, pool, sized[pool])
            why[pool] = (self._why(model, wish, pool, choice.shape), *choice.shape.why, *reasons)
        predicted = {pool: self._speeds.of(model, wish, pool, part) for pool, part in sized.items()}
        speeds = {pool: speed for pool, speed in predicted.items() if speed is not None}
        warnings += _left_out(wish, choice, sized, length)
        # Kinds that differ in their numbers of GPUs alone have the same doubts.
        return replace(choice, sized=sized, warnings=tuple(dict.fromkeys(warnings)), why=why, speeds=speeds)

    def _reasons(self, model: ModelSpec, wish: Wish, pool: Pool, sized: Sized) -> Iterator[str]:
        """What speaks for the context, and what the number of sequences costs."""
        if wish.context_length is None and sized.context_length < model.max_len:
            yield f"context {sized.context_length:,}: what surely fits; the model itself takes {model.max_len:,}"
        elif wish.context_length is None:
            yield f"context {sized.context_length:,}: the model's own"
        speed = self._speeds.of(model, wish, pool, sized)
        if speed and self.task(wish) == "generate":
            short, long = speed.first_token
            yield (
                f"predicted on {pool.gpu.name}: {speed.decode:,.0f} tokens/s for one request, its first token after "
                f"{short:.2g} s (1,000 tokens of prompt) or {long:.2g} s (8,000); {speed.throughput:,.0f} tokens/s at "
                f"full load, {speed.requests} requests of {PROMPT:,} + {OUTPUT} tokens"
            )
        if sized.calibration:
            yield sized.calibration
        seqs = sized.budget.max_num_seqs
        options = replace(engine_options(wish)[0], max_model_len=sized.context_length)
        room = [
            budget.kv_cache
            for number in ((seqs, seqs // 4) if seqs >= 256 else ())
            for budget in [self._accounts.budget(model, pool, sized.parallelism, replace(options, max_num_seqs=number))]
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


def _preference(
    wish: Wish,
    choice: Choice,
    host_counts: Mapping[Pool, int],
    running: Collection[Extent],
    standing: Collection[str],
) -> tuple[Any, ...]:
    """By what a choice is better than others; the least is the best."""
    shape = choice.shape
    stays = shape.among(running)
    left = len(set(standing).difference(choice.sites)) if stays else 0
    room = sum(shape.room(pool, host_counts[pool]) for pool in choice.sized)
    short = room < (wish.replicas or 1)
    part = wish.replicas is None and not choice.whole  # automatic replicas use all that there is
    length = min(sized.context_length for sized in choice.sized.values())
    best: tuple[int, ...] = (-room,) if shape.host_count == 1 else order(shape)
    if wish.objective == "latency":
        best = (shape.host_count, shape.parallelism.pipeline, -shape.parallelism.tensor)
    tight = any(sized.sure is None for sized in choice.sized.values())
    score = _score(wish, choice, host_counts)
    return not stays, left, short, shape.host_count > 1, tight, part, -score, -length, best, order(shape)


def _score(wish: Wish, choice: Choice, host_counts: Mapping[Pool, int]) -> float:
    """What an empty fleet gets of the objective.

    So many replicas are as fast as the slowest kind that may be needed. Of automatic ones all of the kinds with the
    longest context are added up; for ``latency`` the fastest counts.
    """
    if choice.shape.host_count > 1:
        return 0.0  # the network between hosts is not known: the fewest GPUs decide
    gpus = choice.shape.gpu_count
    values = {pool: speed.value(wish.objective, gpus) for pool, speed in choice.speeds.items()}
    if len(values) < len(choice.sized) or not values:
        return 0.0
    if wish.replicas is not None:
        return min(values.values())
    if wish.objective == "latency":
        return max(values.values())
    longest = max(sized.context_length for sized in choice.sized.values())
    return sum(
        choice.shape.room(pool, host_counts[pool]) * gpus * value
        for pool, value in values.items()
        if choice.sized[pool].context_length == longest
    )


def _over_several(shape: Shape, found: Mapping[Pool, tuple[Any, Sequence[Misfit]]]) -> Iterator[str]:
    """Why one host does not do."""
    if shape.host_count > 1:
        pools = [pool for pool, (best, _) in found.items() if best == shape]
        alone = [misfit for pool in pools for misfit in found[pool][1] if misfit.shape.host_count == 1]
        widest = max(alone, key=lambda misfit: (misfit.shape.gpu_count, misfit.shape.parallelism.tensor), default=None)
        lack = f"on one ({widest.shape}) {widest.reason}" if widest else "one does not have the GPUs"
        yield f"pipeline {shape.parallelism.pipeline} over {shape.host_count} hosts: {lack}"


def _left_out(wish: Wish, choice: Choice, used: Collection[Pool], length: int) -> Iterator[str]:
    """Kinds of GPU that would shorten the context of all instances, or may not hold one."""
    for pool in sorted(choice.fitting, key=repr) if wish.replicas is None else ():
        least = choice.fitting[pool].context_length
        if pool in used or (least >= length and choice.fitting[pool].sure is not None):
            continue
        reason = (
            f"there {length} tokens of context are a tight fit. Lower {wish.where}.context_length to use it as well"
        )
        if least < length:
            reason = f"it has room for {least} tokens of context, and the others for {length}. "
            reason += f"Set {wish.where}.context_length to {least} to use it as well"
        yield f"{wish.name}: {pool.gpu.name} is left out: {reason}."


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


def _without_account(wish: Wish, sites: Sequence[Site], running: Collection[Extent], reason: str) -> Choice:
    """A choice of the inventory's shape, or one GPU."""
    host_counts = Counter(site.pool for site in sites)
    parallelism = wish.parallelism or Parallelism()
    shapes = [stated(parallelism, pool, host_counts) for pool in host_counts]
    shapes = [shape for shape in shapes if any(not lack(shape, pool, number) for pool, number in host_counts.items())]
    shape = min(shapes, key=lambda shape: (not shape.among(running), shape.host_count), default=Shape(parallelism))
    warning = f"{wish.name}: it is not sized, because {reason}; whether it fits is not checked"
    sites_of = tuple(site.name for site in sites if not lack(shape, site.pool, host_counts[site.pool]))
    why = f"{shape}: {'as the inventory says' if wish.parallelism else 'it is not sized'}"
    known = {site.name: rates(site.pool) for site in sites}
    ranks = {name: speed_class(gpu.memory) for name, gpu in known.items() if gpu is not None}
    warnings = (f"{warning}.", *_over_hosts(wish, shape))
    return Choice(replace(shape, why=(why,)), sites_of, warnings=warnings, ranks=ranks)


def _over_hosts(wish: Wish, shape: Shape) -> Iterator[str]:
    """What tensor parallelism over hosts costs, which the planner itself never chooses."""
    if shape.is_split:
        tensor, pipeline = shape.parallelism.tensor, shape.parallelism.pipeline
        yield (
            f"{wish.name}: tensor {tensor} goes over {shape.host_count // pipeline} hosts, because "
            f"{wish.where}.parallelism says so: every layer waits twice for the network between them, which is slow "
            f"without InfiniBand or RoCE; "
            f"{{tensor: {shape.linked}, pipeline: {shape.host_count}}} would send far less."
        )
