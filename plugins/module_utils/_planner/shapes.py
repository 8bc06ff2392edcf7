"""The ways in which one instance of a model can be spread over GPUs and alike hosts; private to the collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from .._memory.model import ModelSpec
from .._memory.validity import tensor_sizes
from .._wishes.read import Parallelism, Wish
from .hosts import Extent, Pool, Site

__all__ = ["Shape", "lack", "on_one_host", "on_several_hosts", "order", "possible", "stated"]


@dataclass(frozen=True)
class Shape:
    """How one instance of a model is spread over GPUs and alike hosts, and why so, a line for each reason."""

    parallelism: Parallelism
    host_count: int = 1
    why: tuple[str, ...] = field(default=(), compare=False)

    @property
    def gpu_count(self) -> int:
        """GPUs of one instance."""
        return self.parallelism.tensor * self.parallelism.pipeline

    @property
    def linked(self) -> int:
        """GPUs that a domain of a host has to hold together: the tensor size, or a host's part of it."""
        return min(self.parallelism.tensor, self.gpu_count // self.host_count)

    @property
    def sets(self) -> int:
        """Sets of so many on each of its hosts: pipeline stages, or a part of one."""
        return self.gpu_count // self.host_count // self.linked

    @property
    def is_split(self) -> bool:
        """Whether tensor parallelism goes over hosts."""
        return self.linked < self.parallelism.tensor

    def among(self, extents: Collection[Extent]) -> bool:
        """Whether an instance of one of these extents may have this shape."""
        return any((self.gpu_count, self.host_count, tensor) in extents for tensor in (self.parallelism.tensor, None))

    def room(self, pool: Pool, host_count: int) -> int:
        """Instances that so many empty hosts of a kind take."""
        return host_count * (pool.sets(self.linked) // self.sets) // self.host_count

    def __str__(self) -> str:
        over = f" over {self.host_count} hosts" if self.host_count > 1 else ""
        return f"tensor {self.parallelism.tensor} x pipeline {self.parallelism.pipeline}{over}"


def order(shape: Shape) -> tuple[int, int, int]:
    """The fewest GPUs first, then the fewest hosts; tensor before pipeline parallelism."""
    return shape.gpu_count, shape.host_count, shape.parallelism.pipeline


def _tensor_sizes(model: ModelSpec, pool: Pool) -> list[int]:
    """Those tensor sizes that the model allows and that tile a host: powers of two, and the whole domain."""
    return [size for size in tensor_sizes(model, pool.size) if size & (size - 1) == 0 or size == pool.size] or [1]


def stated(parallelism: Parallelism, pool: Pool, pools: Iterable[Pool]) -> Shape:
    """The inventory's shape on a kind of GPU; its tensor size goes over hosts only where no kind has it on one."""
    hosts = pool.fewest_hosts(parallelism)
    if not any(other.sets(parallelism.tensor) for other in pools):
        hosts = hosts or pool.split_hosts(parallelism)
    return Shape(parallelism, hosts or 1)


def on_one_host(model: ModelSpec, wish: Wish, pool: Pool) -> list[Shape]:
    """The shapes to try on one host of a kind, in the order of the wish's objective.

    Pipelines inside a host come last: they are for models whose heads no larger tensor size divides.
    """
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
    return tensors + sorted(pipelines, key=order)


def on_several_hosts(model: ModelSpec, wish: Wish, pool: Pool, host_count: int) -> list[Shape]:
    """The shapes to try on several hosts of a kind, of so many at most, in the order of the wish's objective.

    Every host gives as many sets as it has, and there are no more hosts than so many GPUs need. So the fewest GPUs are
    on the fewest hosts, and a new host only adds shapes at the end.
    """
    shapes = []
    for number in range(2, min(host_count, len(model.layers)) + 1):
        for tensor in _tensor_sizes(model, pool):
            shape = Shape(Parallelism(tensor, number * pool.sets(tensor)), number)
            if shape.gpu_count > (number - 1) * sum(pool.domains) and shape.parallelism.pipeline <= len(model.layers):
                shapes.append(shape)
    if wish.objective == "latency" and pool.nvlink:
        return sorted(shapes, key=lambda shape: (shape.host_count, shape.parallelism.pipeline))
    return sorted(shapes, key=order)


def lack(shape: Shape, pool: Pool, host_count: int) -> str | None:
    """What so many hosts of a kind do not have for a shape."""
    linked, sets = shape.linked, pool.sets(shape.linked)
    if not sets:
        return f"it needs {linked} linked GPUs; there are {pool.size}"
    if sets < shape.sets:
        return f"it needs {shape.sets} x {linked} linked GPUs on a host; there are {sets} x {linked}"
    if host_count < shape.host_count:
        return (
            f"it needs {shape.gpu_count} GPUs over {shape.host_count} alike hosts; there "
            f"{'are' if host_count > 1 else 'is'} {host_count}"
        )
    return None


def possible(parallelism: Parallelism, sites: Iterable[Site]) -> bool:
    """Whether there are GPUs for an instance, whatever it weighs."""
    host_counts = Counter(site.pool for site in sites)
    return any(pool.takes(parallelism, number) for pool, number in host_counts.items())
