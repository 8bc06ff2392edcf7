"""The two accuracy benchmarks keep their contracts: what they print and how they exit."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
VECTOR = {
    "name": "8B tp1", "avail": [53687091200], "max_model_len": 131072, "bytes_per_block": [2097152],
    "num_blocks": 25600, "need_one_request": [17179869184], "kv_tokens": 409600, "concurrency": 3.125,
    "architecture": {"num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128}, "tensor_parallel": 1,
    "pipeline_parallel": 1, "block_size": 16, "max_num_batched_tokens": 8192, "options": {},
}  # fmt: skip
# https://github.com/llm-d-incubation/llm-d-planner/pull/205, Llama 3.1 8B on one H100.
ROW: dict[str, Any] = {
    "id": "row", "clean": True, "engine": "V1", "vllm_version": "0.19.0", "outcome": "ok", "failure": None,
    "gpu": {"name": "H100 80GB SXM", "cuda_total_gib": 79.19},
    "args": {"tp": 1, "pp": 1, "dp": 1, "gpu_memory_utilization": 0.95, "max_model_len": 8192, "kv_cache_dtype": "auto",
             "max_num_batched_tokens": 8192, "max_num_seqs": 1024, "dtype": None, "enforce_eager": None,
             "quantization": None},
    "config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
               "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
               "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0,
               "tie_word_embeddings": False, "torch_dtype": "bfloat16"},
    "safetensors_bytes": 16060514304, "bytes_from": "formula",
    "measured": {"weights_gib": 14.99, "available_kv_gib": 58.11, "kv_cache_tokens": 476016},
}  # fmt: skip


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


VECTORS = Path(__file__).parent / "fixtures" / "kv_vectors" / "vllm-0.33.0.jsonl"


def test_the_vectors_of_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("golden").main([str(VECTORS)]) == 0
    assert capsys.readouterr().out == "69/69 exact\n"


def test_golden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = benchmark("golden")
    refused = {**VECTOR, "avail": [17179869184], "error": "To serve at least one request with the model's max"}
    assert golden.main([write(tmp_path / "a", VECTOR, refused)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2/2 exact"
    assert golden.main([write(tmp_path / "b", VECTOR, {**VECTOR, "kv_tokens": 1}, {**VECTOR, "error": "no"})]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1/3 exact"


def test_what_golden_cannot_read_is_not_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = benchmark("golden")
    strange = write(
        tmp_path / "a",
        {**VECTOR, "options": {"turbo": True}},
        {**VECTOR, "architecture": {"num_key_value_heads": 8}},
        {key: value for key, value in VECTOR.items() if key != "avail"},
    )
    with (tmp_path / "a").open("a", encoding="utf-8") as lines:
        lines.write("not JSON\n")
    assert golden.main([strange]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "0/4 exact"
    assert told[0] == "8B tp1: cannot be read: unknown option turbo"
    assert all("cannot be read" in line for line in told[:-1])


def test_options_of_vectors(tmp_path: Path) -> None:
    golden = benchmark("golden")
    # Half the blocks are overridden; the length is fitted; each is told from the plain vector.
    half = {"num_blocks": 16385, "need_one_request": [17179869184], "kv_tokens": 262160, "concurrency": 2.0001}
    fitted = {"avail": [10 << 30], "num_blocks": 5120, "need_one_request": [10735321088], "kv_tokens": 81920,
              "concurrency": 1.0002}  # fmt: skip
    lines = write(
        tmp_path / "a",
        {**VECTOR, **half, "options": {"num_gpu_blocks_override": 16385}},
        {**VECTOR, **fitted, "options": {"auto": True}},
        {**VECTOR, **fitted, "options": {"auto": True}, "max_model_len": 81904},
    )
    assert golden.main([lines]) == 0
    assert golden.main([write(tmp_path / "b", {**VECTOR, **fitted})]) == 1


def test_sizing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizing = benchmark("sizing")
    failed = {**ROW, "outcome": "failed", "args": {**ROW["args"], "gpu_memory_utilization": 0.2}}
    dirty = {**ROW, "clean": False}
    rows = write(tmp_path / "rows", ROW, failed, dirty, {**ROW, "vllm_version": "99.1"})
    assert sizing.main([rows, "--clean", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kv_tokens"]["n"] == 1
    assert found["kv_tokens"]["p90"] < 0.5
    assert found["weights"]["median"] < 0.2
    assert (found["failures"], found["false_alarms"]) == ({"caught": 1, "of": 1}, {"raised": 0, "of": 1})
    assert found["unknown"] == 1
    assert sizing.main([rows]) == 0
    assert "this planner" in capsys.readouterr().out


def test_the_prediction_does_not_see_the_measurement() -> None:
    sizing = benchmark("sizing")
    blind = {key: ROW[key] for key in ("gpu", "args", "config", "safetensors_bytes", "vllm_version")}
    assert sizing.predict(blind) == sizing.predict(ROW)


# https://github.com/gpustack/gpustack, performance lab, gpt-oss-120b on A100.
SPEED: dict[str, Any] = {
    "id": "s", "source": "gpustack", "group": "gpustack", "vllm_version": "0.11.0", "model": "openai/gpt-oss-120b",
    "weight_format": "mxfp4", "params_b": 116.8, "active_params_b": 5.1, "gpu": "A100 SXM 80GB", "gpus_total": 1,
    "tensor": 1, "pipeline": 1, "data": 1, "link": "unknown", "concurrency": "max", "num_prompts": 1000,
    "request_rate": None, "input_len": 215.3, "output_len": 195.3, "output_tok_s": 2372.0, "total_tok_s": 4986.0,
    "tpot_ms_mean": None, "tpot_ms_median": None, "itl_ms_mean": None, "itl_ms_median": None,
    "decode_tok_s_per_req": None, "speculative": False, "suspicious": None,
}  # fmt: skip
ALONE = {**SPEED, "concurrency": 1, "tpot_ms_mean": 11.1, "output_tok_s": None, "total_tok_s": None}


def test_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_out = [
        {**ALONE, "suspicious": "eager"},
        {**ALONE, "speculative": True},
        {**SPEED, "concurrency": None, "request_rate": 1},  # it was asked for so much
        {**SPEED, "gpu": "A1000"},
    ]
    rows = write(tmp_path / "speeds.jsonl", SPEED, ALONE, {**ALONE, "tpot_ms_mean": 22.2}, *left_out)
    assert benchmark("speed").main([rows, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {kind: score["n"] for kind, score in scores.items()} == {"decode": 2, "throughput": 1}
    assert set(scores["decode"]) == {"n", "median", "p90"}
    # One of two rows of the same engine says half the speed of the other, so one of them is far from the prediction.
    assert scores["decode"]["p90"] > scores["decode"]["median"]
    assert scores["throughput"]["median"] < 50
    assert benchmark("speed").main([rows]) == 0
    assert "decode" in capsys.readouterr().out


def test_speed_sees_no_measurement(tmp_path: Path) -> None:
    module = benchmark("speed")
    (slow,) = module.read(Path(write(tmp_path / "slow.jsonl", ALONE)))
    (fast,) = module.read(Path(write(tmp_path / "fast.jsonl", {**ALONE, "tpot_ms_mean": 1.0})))
    assert slow.predicted() == fast.predicted()
    assert fast.measured == 1000.0


def test_speed_of_a_model_that_nobody_lists(tmp_path: Path) -> None:
    rows = [{**ALONE, "model": "who/ever", "params_b": 32, "active_params_b": active} for active in (32, 3, None)]
    dense, mixture, unstated = benchmark("speed").read(Path(write(tmp_path / "speeds.jsonl", *rows)))
    assert mixture.predicted() > 2 * dense.predicted()
    assert unstated.predicted() == dense.predicted()


def test_placement(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("placement").main(["--cases", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"fleets", "possible", "required", "within_3_percent", "worst_percent"}
    assert found["possible"] >= 3
    assert found["required"] == 100
    assert found["worst_percent"] <= 15
