"""Refusals, and what was considered: what is needed, what there is, what is nearest, and what to change; private."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._memory.model import ModelSpec
from .._wishes.read import Parallelism, Wish
from .fit import STEP, Accounts, Misfit, Sized
from .hosts import Host, Pool, Site
from .knobs import in_words, knobs
from .place import NoRoomError
from .shapes import Shape, lack, on_several_hosts, order
from .text import counted, some

__all__ = ["considered", "no_room", "nothing_fits", "too_large", "unknown_need"]


def considered(wish: Wish, misfits: Sequence[Misfit], chosen: Shape) -> Iterator[dict[str, Any]]:
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


def nothing_fits(
    accounts: Accounts, model: ModelSpec, wish: Wish, misfits: Sequence[Misfit], host_counts: Mapping[Pool, int]
) -> dict[str, Any]:
    """The one rejected shape that came nearest, and what would let the model in, the cheapest first."""

    def distance(misfit: Misfit) -> tuple[Any, ...]:
        ratio = (misfit.needed_gib or 0.0) / (misfit.available_gib or 1.0)
        return misfit.needed_gib is None, -misfit.longest, ratio, order(misfit.shape)

    nearest = min(misfits, key=distance)
    cures = knobs(accounts, wish, misfits, host_counts)
    if cures:
        return _record(wish, nearest, nearest_fit=cures[0].fit, knob=in_words(cures))
    if nearest.needed_gib is None:
        return _record(
            wish, nearest, nearest_fit=None, knob=f"Take other GPUs, or another model as {wish.where}.source."
        )
    larger = f"take larger GPUs, or a quantised or smaller model as {wish.where}.source"
    wider = None if wish.parallelism else _on_more_hosts(accounts, model, wish, host_counts)
    if wider:
        shape, pool = wider
        missing = lack(shape, pool, host_counts[pool])
        more = "Add such hosts, or hosts with more of these GPUs"
        knob = f"{str(shape).capitalize()} would do, but {missing}. {more}; {larger}."
        return _record(wish, nearest, nearest_fit=f"{shape} on {pool.gpu.name}", knob=knob)
    times = -(-nearest.needed_gib * nearest.shape.gpu_count // (nearest.available_gib or 1.0))
    return _record(
        wish,
        nearest,
        nearest_fit=f"about {times:.0f} x {nearest.pool.gpu.name}",
        knob=f"It would take about {times:.0f} of them; {larger}"
        f"{', or widen its parallelism' if wish.parallelism else ''}.",
    )


def unknown_need(wish: Wish, reason: str, *, read: bool) -> dict[str, Any]:
    """The refusal of a model of which nobody can say how many GPUs it needs; ``read``: its configuration is known."""
    facts = f"or write the content of its config.json below fleet_model_facts as {{{wish.name}: {{config: ...}}}}"
    if read:
        ways = "State"
    elif wish.source.startswith("/"):
        ways = f"Put the model into {wish.source} on a host of gpu_hosts, {facts}. Or state"
    else:
        ways = (
            f"Download it into the hub cache of this machine (hf download {wish.source}; fleet_hf_home names another "
            f"cache), set fleet_hub_online: true, {facts}. Or state"
        )
    return {
        "model": wish.name,
        "shape": "auto",
        "reason": f"how many GPUs it needs cannot be computed, because {reason}.",
        "needed_gib": None,
        "available_gib": None,
        "nearest_fit": None,
        "knob": f"{ways} {wish.where}.parallelism, such as {{tensor: 2}}; then nobody checks the memory.",
    }


def _on_more_hosts(
    accounts: Accounts, model: ModelSpec, wish: Wish, host_counts: Mapping[Pool, int]
) -> tuple[Shape, Pool] | None:
    """The smallest shape that would fit, were there more hosts like those that there are."""
    fitting = []
    for pool in host_counts:
        for shape in on_several_hosts(model, wish, pool, len(model.layers)):
            if isinstance(accounts.attempt(model, wish, pool, shape, shape.host_count), Sized):
                fitting.append((shape, pool))
                break
    return min(fitting, key=lambda pair: (*order(pair[0]), repr(pair[1])), default=None)


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


def _rejected(wish: Wish, shape: Shape, reason: str, *, nearest_fit: str | None, knob: str) -> dict[str, Any]:
    return {
        "model": wish.name,
        "shape": str(shape),
        "reason": reason,
        "needed_gib": None,
        "available_gib": None,
        "nearest_fit": nearest_fit,
        "knob": knob,
    }


def too_large(wish: Wish, sites: Sequence[Site], hosts: Sequence[Host]) -> dict[str, Any]:
    """The refusal of a parallelism that there are not the GPUs for."""
    parallelism = wish.parallelism or Parallelism()
    shape = Shape(parallelism)
    largest = max((site.pool.size for site in sites), default=0)
    linked = " that are linked with each other" if parallelism.tensor > 1 else ""
    each = " for every stage" if parallelism.pipeline > 1 else ""
    needs = f"one instance ({shape}) needs {counted(parallelism.tensor, 'GPU')} of one host{linked}{each}"
    if not largest:
        names = ", ".join(
            some([host.name for host in hosts if wish.host_names is None or host.name in wish.host_names])
        )
        return _rejected(
            wish,
            shape,
            f"{needs}; none of its hosts ({names or 'no host of gpu_hosts'}) has a usable one.",
            nearest_fit=None,
            knob=f"See to the GPUs of these hosts, or widen {wish.where}.hosts.",
        )
    if largest < parallelism.tensor:
        where = ", ".join(some([site.host for site in sites if site.pool.size == largest]))
        return _rejected(
            wish,
            shape,
            f"{needs}; the largest such set has {largest} ({where}).",
            nearest_fit=counted(largest, "GPU"),
            knob=f"Lower {wish.where}.parallelism.tensor to at most {largest}; a pipeline may span several hosts.",
        )
    return _too_long(wish, parallelism, Counter(site.pool for site in sites))


def _too_long(wish: Wish, parallelism: Parallelism, host_counts: Mapping[Pool, int]) -> dict[str, Any]:
    """The refusal of a pipeline that there are not the alike hosts for; one of one stage is possible."""
    fitting = [
        (stages, pool)
        for pool, number in host_counts.items()
        for stages in range(1, parallelism.pipeline)
        if pool.takes(replace(parallelism, pipeline=stages), number)
    ]
    stages, pool = max(fitting, key=lambda pair: (pair[0], host_counts[pair[1]], repr(pair[1])))
    asked = Shape(parallelism, pool.fewest_hosts(parallelism) or 1)
    shorter = replace(parallelism, pipeline=stages)
    there = f"{'are' if host_counts[pool] > 1 else 'is'} {host_counts[pool]} ({pool.gpu.name})"
    return _rejected(
        wish,
        asked,
        f"one instance ({asked}) needs {asked.gpu_count} GPUs over {asked.host_count} alike hosts; there {there}.",
        nearest_fit=str(Shape(shorter, pool.fewest_hosts(shorter) or 1)),
        knob=f"Lower {wish.where}.parallelism.pipeline to {stages}, or add such hosts.",
    )


def no_room(wish: Wish, shape: Shape, error: NoRoomError, sites: Mapping[str, Site]) -> dict[str, Any]:
    """The refusal of instances that have no room beside the others."""
    wanted = error.demand.replicas or 1
    there = sum(sum(sites[name].pool.domains) for name in error.demand.host_names)
    each = (" each" if wanted > 1 else "") + (f" over {shape.host_count} alike hosts" if shape.host_count > 1 else "")
    return _rejected(
        wish,
        shape,
        f"{counted(wanted, 'instance')} of {counted(shape.gpu_count, 'GPU')}{each} need{'' if wanted > 1 else 's'} "
        f"{counted(wanted * shape.gpu_count, 'GPU')}; its hosts have {counted(there, 'usable one')}, "
        f"and beside the other models there is room for {error.placed} of the {wanted}.",
        nearest_fit=f"replicas {error.placed}" if error.placed else None,
        knob=f"Lower {wish.where}.replicas to {error.placed}, or those of another model, or add GPUs."
        if error.placed
        else "Lower the replicas of another model, or add GPUs.",
    )
