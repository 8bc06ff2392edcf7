"""Fits the constants of the speed model: ``python tests/benchmarks/speed_fit.py SPEEDS.jsonl [--splits N]``.

Prints the constants that suit all rows best, and how well constants that were fitted to half of the *sources* predict
the other half, for so many random halves: rows of one source are not independent. A change of constants goes to
``_speed/roofline.py`` by hand.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.speed import CONSTANTS, KINDS, Case, Constants, errors, read, summary

# What is fitted, and how far each constant may go. The others are taken as they are: the rows cannot tell them apart.
BOUNDS = {
    "narrow": (0.5, 1.0), "packed": (0.3, 1.0), "mfu": (0.2, 0.95), "mfu_experts": (0.1, 0.95), "layer": (5e-6, 150e-6),
    "before": (1.0, 2.5), "hop_pcie": (5e-6, 80e-6), "request": (1e-6, 200e-6),
}  # fmt: skip
# What one would have taken without measurements, and how firmly it is held: with few sources, constants that stand in
# for one another run away.
PRIOR = replace(
    CONSTANTS, narrow=0.85, packed=0.7, mfu=0.6, mfu_experts=0.4, layer=60e-6, before=1.4, hop_pcie=20e-6, request=80e-6
)
HELD = 0.05
LEAST = 5  # rows of a kind that a split needs to tell anything


def loss(cases: Sequence[Case], constants: Constants) -> float:
    """Mean of the errors as logarithms, and how far the constants are from :data:`PRIOR`, squared.

    Each source and kind has the square root of its rows as its weight, decode as much as throughput. Errors are taken
    absolutely, so that a few rows that are odd do not decide.
    """
    rows: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    for case in cases:
        wrong = abs(math.log(case.predicted(constants) / case.measured))
        rows[case.kind].setdefault(case.group, []).append(wrong)
    total = 0.0
    for groups in rows.values():
        weights = {group: math.sqrt(len(values)) for group, values in groups.items()}
        if groups:
            total += sum(weights[group] * statistics.mean(groups[group]) for group in groups) / sum(weights.values())
    return total + HELD * sum(math.log(getattr(constants, name) / getattr(PRIOR, name)) ** 2 for name in BOUNDS)


def fit(cases: Sequence[Case], start: Constants = PRIOR) -> Constants:
    """The best constants by search along one after the other, with steps that shrink."""
    best, least = start, loss(cases, start)
    for step in (1.5, 1.2, 1.08, 1.03):
        improved = True
        while improved:
            improved = False
            for name, (low, high) in BOUNDS.items():
                now = getattr(best, name)
                for value in (now * step, now / step):
                    tried = replace(best, **{name: min(high, max(low, value))})
                    found = loss(cases, tried)
                    if found < least - 1e-5:
                        best, least, improved = tried, found, True
    return best


@dataclass(frozen=True)
class Split:
    """How constants predict the rows of one kind of the sources that they have not seen."""

    kind: str
    median: float
    ninetieth: float
    factors: list[float]


def held_out(cases: Sequence[Case], splits: int) -> Iterator[Split]:
    """The scores of so many random halves of the sources."""
    groups = sorted({case.group for case in cases})
    for seed in range(splits):
        seen = set(random.Random(seed).sample(groups, len(groups) // 2))
        constants = fit([case for case in cases if case.group in seen])
        for kind in KINDS:
            unseen = [case for case in cases if case.group not in seen and case.kind == kind]
            score = summary(errors(unseen, kind, constants))
            if score["n"] >= LEAST:
                factors = [math.exp(abs(math.log(case.predicted(constants) / case.measured))) for case in unseen]
                yield Split(kind, score["median"], score["p90"], factors)


def main(argv: list[str]) -> int:
    """Fit, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--splits", type=int, default=20, help="random halves of the sources")
    options = parser.parse_args(argv)
    cases = read(options.file)
    constants = fit(cases)
    for name in BOUNDS:
        print(f"{name:12}{getattr(constants, name):.3g}")
    for kind in KINDS:
        print(f"{kind:11} in sample {summary(errors(cases, kind, constants))}")
    found = list(held_out(cases, options.splits))
    for kind in KINDS:
        own = [split for split in found if split.kind == kind]
        if own:
            median = statistics.median(split.median for split in own)
            ninetieth = statistics.median(split.ninetieth for split in own)
            factors = sorted(factor for split in own for factor in split.factors)
            print(f"{kind:11} held out, {len(own)} splits: median {median:.1f} %, p90 {ninetieth:.1f} %, ", end="")
            print(f"90 % within x{factors[-(-9 * len(factors) // 10) - 1]:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
