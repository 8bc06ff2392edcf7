"""How right are predicted speeds? ``python tests/benchmarks/speed.py SPEEDS.jsonl [--json]``.

Every line of the file is one public measurement of vLLM. Rows that are marked ``suspicious`` or ``speculative`` are
left out. *Decode* are the rows of one request at a time: its tokens/s after the first one, or where only the
tokens/s of the whole request are known, those. *Throughput* are the rows at a stated concurrency above one, or with all
prompts at once (``max``): output tokens/s of all GPUs. Rows at a request rate alone are of neither kind: they measure
what was asked. The prediction sees model, format, GPU, parallel sizes, link, version and lengths, never a speed.

A row names its model only, so ``speed_models.csv`` has the sizes of public models; of others they are guessed from the
number of parameters.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.catalogue import gpu_type
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import parse_version
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.gpus import GpuSpeed, gpu_speed
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.roofline import (
    CONSTANTS,
    DECODE_BAND,
    THROUGHPUT_BAND,
    Constants,
    Roofline,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.work import Work

KINDS = ("decode", "throughput")
BANDS = {"decode": DECODE_BAND, "throughput": THROUGHPUT_BAND}
PROMPT, OUTPUT = 512.0, 256.0  # tokens, where a row does not say
# Bytes of a weight with its scales, and its bits. Others are taken for 4 bits in groups of 128.
FORMATS = {
    "bf16": (2.0, 16), "fp8": (1.01, 8), "int8-w8a8": (1.01, 8), "gptq8": (1.03, 8), "mxfp4": (0.53, 4),
    "nvfp4": (0.56, 4), "int4-g32": (0.58, 4),
}  # fmt: skip
PACKED = (0.53, 4)
NEW = (0, 20, 0)  # where a row tells no version


@dataclass(frozen=True)
class Case:
    """A row as the model sees it, and what was measured (tokens/s)."""

    id: str
    group: str
    kind: str
    work: Work
    gpu: GpuSpeed
    tensor: int
    pipeline: int
    engines: int
    nvlink: bool
    current: bool
    requests: float  # of one engine
    prompt: float
    output: float
    offered: float  # output tokens/s that were asked for (0: all at once)
    whole: bool  # of one request, with its first token
    measured: float

    def predicted(self, constants: Constants = CONSTANTS) -> float:
        """Tokens/s."""
        line = Roofline(self.work, self.gpu, self.tensor, self.pipeline, self.nvlink, self.current, constants)
        context = self.prompt + self.output / 2
        if self.kind == "throughput":
            found = self.engines * line.throughput(self.requests, self.prompt, self.output)
            return 1 / (1 / found + 1 / self.offered) if self.offered else found  # not all had come at the start
        if self.whole:
            return self.output / (line.prompt(self.prompt) + self.output * line.step(1, context))
        return line.decode(context)


@cache
def known_models() -> list[tuple[re.Pattern[str], dict[str, int]]]:
    """The sizes of public models, by what their names contain."""
    with Path(__file__).with_name("speed_models.csv").open(encoding="utf-8") as file:
        return [
            (re.compile(row.pop("pattern")), {key: int(value) for key, value in row.items()})
            for row in csv.DictReader(file)
        ]


def sizes(name: str, billions: float, active: float) -> dict[str, int]:
    """The sizes of a model; those of one that is not listed follow the usual proportions."""
    last = name.lower().rpartition("/")[2]
    found = next((known for pattern, known in known_models() if pattern.search(last)), None)
    if found is not None:
        return found
    mixture = active < 0.9 * billions
    layers = round(min(128, max(16, 23 * billions**0.21 if mixture else 16 * billions**0.37)))
    hidden = round((active * 1e9 / (14 * layers)) ** 0.5 / 128) * 128 or 128
    experts = {"experts": 128, "experts_per_token": 8} if mixture else {"experts": 0, "experts_per_token": 0}
    heads = max(1, hidden // 128)
    rest = {
        "heads": heads,
        "kv_heads": min(8, heads),
        "head_size": 128,
        "vocabulary": 150_000,
        "latent": 0,
        "window": 0,
    }
    return {"layers": layers, "hidden": hidden, "attention_layers": layers, **rest, **experts}


def work_of_row(row: Mapping[str, Any]) -> Work:
    """The work of a row's model, from its name and its numbers of parameters."""
    billions = float(row["params_b"])
    active = min(float(row["active_params_b"] or billions), billions)
    size = sizes(str(row["model"]), billions, active)
    each, bits = FORMATS.get(str(row["weight_format"]), PACKED)
    head = size["vocabulary"] * size["hidden"] / 1e9  # 16 bits wide in every format, and read whole; its table is not
    tied = billions < 5
    share = size["experts_per_token"] / size["experts"] if size["experts"] else 1.0
    experts = (billions - active) / (1 - share) if size["experts"] and active < billions else 0.0
    shared = max(0.0, billions - experts - (head if tied else 2 * head))
    own = 2.0 if row["weight_format"] == "mxfp4" else each  # gpt-oss: the experts alone are of four bits
    token = 2.0 * (size["latent"] or 2 * size["kv_heads"] * size["head_size"])  # bytes in one layer
    whole = size["attention_layers"]
    windowed = size["layers"] - whole if size["window"] else 0
    return Work(
        layers=size["layers"],
        hidden=size["hidden"],
        shared_bytes=(shared * own + head * 2) * 1e9,
        expert_bytes=experts * each * 1e9,
        experts=size["experts"],
        experts_per_token=size["experts_per_token"],
        active_weights=(shared + experts * share + head) * 1e9,
        attention_width=(whole + windowed) * size["heads"] * size["head_size"],
        kv=((whole * token, 0), (windowed * token, size["window"])),
        kv_heads=size["kv_heads"],
        bits=bits,
    )


def room(work: Work, row: Mapping[str, Any], tokens: float) -> float:
    """Requests of so many tokens that the cache of one engine holds: nine tenths of the memory, less the weights."""
    gpus = (row["tensor"] or 1) * (row["pipeline"] or 1)
    total = (gpu_type(str(row["gpu"])).total_gib or 24.0) * 2**30 * gpus
    left = 0.9 * total - work.shared_bytes - work.expert_bytes - 2 * 2**30 * gpus
    replicated = max(1, (row["tensor"] or 1) // work.kv_heads)
    held = tokens * sum(size for size, _ in work.kv)  # while a prompt is read, windows are held whole
    return max(1.0, left / (held * replicated))


def case_of(row: Mapping[str, Any]) -> Case | None:
    """The case of a row; None for one that is of no kind, or of a GPU or a model of which nothing is known."""
    gpu = gpu_speed(str(row["gpu"])) or gpu_speed(gpu_type(str(row["gpu"])).name)
    kind = "decode" if row["concurrency"] == 1 else "throughput" if row["concurrency"] is not None else ""
    if row["suspicious"] or row["speculative"] or gpu is None or not kind or not row["params_b"]:
        return None
    prompt, output = row["input_len"] or PROMPT, row["output_len"] or OUTPUT
    measured, whole = _decode(row) if kind == "decode" else (_throughput(row, prompt, output), False)
    if not measured:
        return None
    work = work_of_row(row)
    engines = row["data"] or 1
    version = parse_version(str(row["vllm_version"] or "")) or NEW
    version = NEW if version < (0, 2, 0) else version  # 0.1.dev: built from the main branch
    asked = float(row["num_prompts"] or 1000) if row["concurrency"] == "max" else float(row["concurrency"])
    # vLLM's default of max-num-seqs (engine/arg_utils.py): more from 70 GiB on, but not on A100.
    large = version >= (0, 9, 0) and (gpu_type(str(row["gpu"])).total_gib or 0) >= 70 and "A100" not in gpu.name
    requests = min(asked / engines, 1024.0 if large else 256.0, room(work, row, prompt + output))
    return Case(
        str(row["id"]), str(row["group"]), kind, work, gpu, row["tensor"] or 1, row["pipeline"] or 1, engines,
        row["link"] == "nvlink" or (row["link"] == "unknown" and gpu.form != "card"), version >= (0, 11, 0),
        max(1.0, requests), float(prompt), float(output), output * float(row["request_rate"] or 0), whole, measured,
    )  # fmt: skip


def _decode(row: Mapping[str, Any]) -> tuple[float | None, bool]:
    """Tokens/s of one request, and whether its first token is counted in."""
    if row["decode_tok_s_per_req"]:
        return float(row["decode_tok_s_per_req"]), False
    times = ("tpot_ms_mean", "tpot_ms_median", "itl_ms_mean", "itl_ms_median")
    milliseconds = next((row[key] for key in times if row.get(key)), None)
    if milliseconds:
        return 1000.0 / float(milliseconds), False
    return (float(row["output_tok_s"]) if row["output_tok_s"] else None), True


def _throughput(row: Mapping[str, Any], prompt: float, output: float) -> float | None:
    """Output tokens/s of all GPUs."""
    if row["output_tok_s"]:
        return float(row["output_tok_s"])
    return float(row["total_tok_s"]) * output / (prompt + output) if row["total_tok_s"] else None


def read(file: Path) -> list[Case]:
    """The cases of a file."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [case for case in map(case_of, rows) if case is not None]


def errors(cases: Sequence[Case], kind: str, constants: Constants = CONSTANTS) -> list[float]:
    """Relative errors in percent of what was measured."""
    return [abs(case.predicted(constants) / case.measured - 1) * 100 for case in cases if case.kind == kind]


def summary(found: Sequence[float]) -> dict[str, Any]:
    """Count, median and ninetieth percentile (the nearest rank)."""
    if not found:
        return {"n": 0, "median": None, "p90": None}
    ordered = sorted(found)
    ninetieth = ordered[-(-9 * len(ordered) // 10) - 1]
    return {"n": len(ordered), "median": round(statistics.median(ordered), 1), "p90": round(ninetieth, 1)}


def inside(cases: Sequence[Case], kind: str) -> float:
    """The share of rows within the band that a plan shows, in percent."""
    own = [case for case in cases if case.kind == kind]
    hits = [1 / BANDS[kind] <= case.predicted() / case.measured <= BANDS[kind] for case in own]
    return round(100 * sum(hits) / len(hits), 1) if hits else 0.0


def main(argv: list[str]) -> int:
    """Score the file and print a table, or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args(argv)
    cases = read(options.file)
    scores = {kind: summary(errors(cases, kind)) for kind in KINDS}
    if options.json:
        print(json.dumps(scores))
        return 0
    for kind, score in scores.items():
        print(f"{kind:11}{score['n']:>5} rows   median {score['median']} %   p90 {score['p90']} %   ", end="")
        print(f"inside the band of x{BANDS[kind]}: {inside(cases, kind)} %")
    worst = sorted(cases, key=lambda case: -abs(case.predicted() / case.measured - 1))[:8]
    for case in worst:
        print(f"  {case.predicted() / case.measured:6.2f} x measured  {case.id} {case.kind} {case.group}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
