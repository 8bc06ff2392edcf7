"""How right are the predicted budgets? ``python tests/benchmarks/sizing.py STARTUPS.jsonl [--clean] [--json]``.

Every line of the file is one start-up of vLLM that somebody measured. The prediction sees its ``gpu``, ``args``,
``config``, ``safetensors_bytes`` and ``vllm_version``; ``measured`` and ``outcome`` are only compared with. A row
that the planner calls unknown is counted, with the reason, and takes no part in the errors. ``--clean`` keeps the
clean rows of the V1 engine, vLLM 0.10 and newer, which the goals are about.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import SizingError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.account import Budget, memory_budget
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import gpu_type
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.engine_options import EngineOptions
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.regimes import Unknown
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import parse_version

# The predictors of the field on clean rows (V1, 0.10 and newer), error of KV tokens: the table of the README that
# comes with the measured start-ups. (name, rows, median %, p90 %, failures caught, false alarms)
FIELD: tuple[tuple[str, str, float, float, str, str], ...] = (
    ("naive: total*util - weights", "56", 4.3, 40, "3/4", "0/59"),
    ("vramscout 0.7.0", "54", 2.8, 26, "3/4", "0/57"),
    ("aiconfigurator 0.12.0", "45", 4.3, 58, "3/4", "0/48"),
    ("kvfit 0.3.0", "46", 4.8, 53, "3/4", "0/49"),
    ("modelinfo-cli 1.4.4", "49", 4.3, 110, "3/4", "1/52"),
    ("ridgepoint 0.1.2", "53", 6.1, 141, "1/2", "1/56"),
    ("llm-d-planner", "56", 7.3, 93, "3/4", "1/59"),
)


def predict(row: Mapping[str, Any]) -> Budget | Unknown:
    """The budget of a row, from what was known before the start."""
    args, gpu = row.get("args") or {}, row.get("gpu") or {}
    if not row.get("config"):
        return Unknown("no config")
    try:
        model = read_model(row["config"], total_bytes=row.get("safetensors_bytes"))
    except SizingError as error:
        return Unknown(str(error))
    if (args.get("dp") or 1) > 1 and model.moe is not None:
        return Unknown("data parallelism of a mixture of experts is not covered")
    length = args.get("max_model_len")
    auto = length in ("auto", -1)
    options = EngineOptions(
        dtype=args.get("dtype") or "auto",
        kv_cache_dtype=args.get("kv_cache_dtype") or "auto",
        max_model_len=None if auto else length,
        auto_length=auto,
        max_num_batched_tokens=args.get("max_num_batched_tokens"),
        max_num_seqs=args.get("max_num_seqs"),
        gpu_memory_utilization=args.get("gpu_memory_utilization"),
        enforce_eager=bool(args.get("enforce_eager")),
        quantization=args.get("quantization"),
    )
    return memory_budget(
        model,
        gpu_type(gpu.get("name") or "", gpu.get("cuda_total_gib")),
        tensor=args.get("tp") or 1,
        pipeline=args.get("pp") or 1,
        options=options,
        version=row.get("vllm_version") or "",
    )


@dataclass
class Score:
    """Relative errors in percent, and the verdicts."""

    tokens: list[float] = field(default_factory=list)
    kv_gib: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    failures: int = 0
    caught: int = 0
    starts: int = 0
    alarms: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    rows: list[tuple[str, float]] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        """Predict a row and compare."""
        budget = predict(row)
        if isinstance(budget, Unknown):
            self.unknown[budget.reason] += 1
            return
        measured = row["measured"]
        # Published logs are mostly of repeated boots, whose compiler's cache is warm: that is what is compared.
        refused = budget.refusal_warm is not None
        if row["outcome"] == "failed":
            self.failures += 1
            self.caught += refused
        else:
            self.starts += 1
            self.alarms += refused
        if measured.get("weights_gib") and row.get("bytes_from") != "log":
            self.weights.append(error(budget.weights, measured["weights_gib"]))
        if row["outcome"] == "failed":
            return
        if measured.get("available_kv_gib"):
            self.kv_gib.append(error(budget.kv_cache_warm, measured["available_kv_gib"]))
        if measured.get("kv_cache_tokens"):
            wrong = error(budget.kv_cache_tokens_warm, measured["kv_cache_tokens"])
            self.tokens.append(wrong)
            self.rows.append((row["id"], wrong))

    def as_dict(self) -> dict[str, Any]:
        """The numbers that ``--json`` prints."""
        return {
            "kv_tokens": summary(self.tokens),
            "kv_gib": summary(self.kv_gib),
            "weights": summary(self.weights),
            "failures": {"caught": self.caught, "of": self.failures},
            "false_alarms": {"raised": self.alarms, "of": self.starts},
            "unknown": sum(self.unknown.values()),
        }


def error(predicted: float, measured: float) -> float:
    """Relative error in percent."""
    return abs(predicted - measured) / abs(measured) * 100


def summary(errors: Sequence[float]) -> dict[str, Any]:
    """Count, median and ninetieth percentile (the nearest rank)."""
    if not errors:
        return {"n": 0, "median": None, "p90": None}
    ordered = sorted(errors)
    ninetieth = ordered[min(len(ordered) - 1, -(-9 * len(ordered) // 10) - 1)]
    return {"n": len(ordered), "median": round(statistics.median(ordered), 3), "p90": round(ninetieth, 3)}


def is_scored(row: Mapping[str, Any]) -> bool:
    """A clean row of the V1 engine, 0.10 or newer."""
    return (
        bool(row["clean"]) and row["engine"] == "V1" and (parse_version(row["vllm_version"]) or (0, 0, 0)) >= (0, 10, 0)
    )


def table(score: Score) -> str:
    """The result beside the field's, as text."""
    numbers = score.as_dict()
    tokens = numbers["kv_tokens"]
    lines = [f"{'predictor':32}{'n':>5}{'median':>9}{'p90':>8}{'caught':>9}{'alarms':>9}"]
    for name, count, median, ninetieth, caught, alarms in FIELD:
        lines.append(f"{name:32}{count:>5}{median:>7.1f} %{ninetieth:>6.0f} %{caught:>9}{alarms:>9}")
    caught, alarms = numbers["failures"], numbers["false_alarms"]
    lines.append(
        f"{'this planner':32}{tokens['n']:>5}{tokens['median'] or 0:>7.2f} %{tokens['p90'] or 0:>6.2f} %"
        f"{caught['caught']:>7}/{caught['of']}{alarms['raised']:>6}/{alarms['of']}"
    )
    for key in ("kv_gib", "weights"):
        part = numbers[key]
        lines.append(f"  {key:30}{part['n']:>5}{part['median'] or 0:>7.2f} %{part['p90'] or 0:>6.2f} %")
    lines.append(f"unknown: {numbers['unknown']}")
    lines.extend(f"  {count} x {reason}" for reason, count in score.unknown.most_common())
    worst = sorted(score.rows, key=lambda entry: -entry[1])[:8]
    lines.append("largest errors of KV tokens:")
    lines.extend(f"  {wrong:6.1f} %  {name}" for name, wrong in worst)
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Score the file and print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--clean", action="store_true", help="only the rows that the goals are about")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args(argv)
    rows = [json.loads(line) for line in options.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    score = Score()
    for row in rows:
        if not options.clean or is_scored(row):
            score.add(row)
    print(json.dumps(score.as_dict()) if options.json else table(score))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
