"""Chooses how one instance of a model is spread over GPUs, and what its engine is told; private to the collection.

Between the formulas (``_memory``), which choose nothing, and the plan (``plan``), which knows hosts.
:meth:`Sizer.choose` tries shapes on every kind of GPU that a model may go to. Its rules by objective:

- ``throughput``: the fewest GPUs that hold the model, so that there are as many replicas as can be;
- ``latency``: the widest tensor size that is valid inside the NVLink domain. Without NVLink, more GPUs answer
  later, not sooner, and it is as ``throughput``;
- ``balanced``: the next wider tensor size after ``throughput``'s, where NVLink joins the GPUs.

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

__all__ = ["Choice", "Sizer"]


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


class Sizer:
    """Chooses shapes; what it has computed for a model on a kind of GPU, it keeps."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self._accounts = accounts or Accounts()
        self.on_gpus = self._accounts.on_gpus

    def task(self, wish: Wish) -> str:
        """What the model of a wish does; see :data:`~.task.TASKS`."""
        return self._accounts.task(wish)

    def task_options(self, wish: Wish) -> dict[str, str]:
        """The options that make it do what the wish states, where it would not by itself."""
        return self._accounts.task_options(wish)

    def choose(self, wish: Wish, sites: Sequence[Site], running: Collection[Extent] = ()) -> Choice:
        """The shape for a model on the sites it may go to.

        Where kinds of GPU would have different shapes, ``running`` (the extents that its instances have now) decides,
        so that a new kind moves nothing; else whether there is room for all replicas, then whether one host does. Then
        ``latency`` has the fewest stages and the widest tensor size; the others have the one of which the most
        instances fit or, over several hosts, the fewest GPUs.

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

        def preference(shape: Shape) -> tuple[Any, ...]:
            takes = [
                pool
                for pool in pools
                if isinstance(self._accounts.attempt(model, wish, pool, shape, host_counts[pool]), Sized)
            ]
            room = sum(shape.room(pool, host_counts[pool]) for pool in takes)
            best: tuple[int, ...] = (-room,) if shape.host_count == 1 else order(shape)
            if wish.objective == "latency":
                best = (shape.host_count, shape.parallelism.pipeline, -shape.parallelism.tensor)
            return not shape.among(running), room < (wish.replicas or 1), shape.host_count > 1, best, order(shape)

        chosen = min(fitting, key=preference)
        results = {pool: self._accounts.attempt(model, wish, pool, chosen, host_counts[pool]) for pool in pools}
        misfits += [result for result in results.values() if isinstance(result, Misfit)]
        sized = {pool: result for pool, result in results.items() if isinstance(result, Sized)}
        return Choice(
            shape=replace(chosen, why=tuple(_why(wish, chosen, found))),
            sites=tuple(site.name for site in sites if site.pool in sized),
            sized=sized,
            rejected=tuple(considered(wish, misfits, chosen)),
            warnings=(*self._notes(model, wish), *_over_hosts(wish, chosen)),
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
        if wish.objective == "balanced" and pool.nvlink:
            wider = next((other for other in shapes if other.parallelism.tensor > shape.parallelism.tensor), None)
            if wider and wider.parallelism.pipeline == 1:
                fits = isinstance(self._accounts.attempt(model, wish, pool, wider, host_count), Sized)
                return wider if fits else shape, misfits
        return shape, misfits

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
    elif wish.objective == "balanced" and linked and chosen.host_count == 1 and chosen.parallelism.tensor > 1:
        reason = "balanced: one tensor size wider than the fewest GPUs that hold the model, where there is one"
    yield f"{chosen}: {reason}"
    if chosen.host_count > 1:
        alone = [misfit for pool in pools for misfit in found[pool][1] if misfit.shape.host_count == 1]
        widest = max(alone, key=lambda misfit: (misfit.shape.gpu_count, misfit.shape.parallelism.tensor), default=None)
        lack = f"on one ({widest.shape}) {widest.reason}" if widest else "one does not have the GPUs"
        yield f"pipeline {chosen.parallelism.pipeline} over {chosen.host_count} hosts: {lack}"


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
    return Choice(replace(shape, why=(why,)), sites_of, warnings=(f"{warning}.", *_over_hosts(wish, shape)))


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
