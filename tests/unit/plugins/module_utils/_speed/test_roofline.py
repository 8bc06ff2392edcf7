from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._memory.model_config import read_model
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.gpus import GpuSpeed, gpu_speed
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.roofline import (
    DECODE_BAND,
    THROUGHPUT_BAND,
    Roofline,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._speed.work import work_of

from tests.unit.fleets import facts


def gpu(name: str) -> GpuSpeed:
    found = gpu_speed(name)
    assert found is not None
    return found


def line(model: str, name: str, tensor: int = 1, *, nvlink: bool = False, pipeline: int = 1) -> Roofline:
    return Roofline(work_of(read_model(facts(model)["config"])), gpu(name), tensor, pipeline, nvlink)


@pytest.mark.parametrize("model", ["llama-3.1-8b-instruct", "llama-3.3-70b-instruct", "qwen3-30b-a3b", "deepseek-v3"])
@pytest.mark.parametrize("name", ["H100", "A100 PCIe", "L40S"])
@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_nothing_is_faster_than_its_memory_and_its_tensor_cores(model: str, name: str, tensor: int) -> None:
    made = line(model, name, tensor, nvlink=True)
    limit = made.gpu.memory * 1e9 * tensor / made.work.weight_bytes(1)
    assert 0 < made.decode(0) < limit
    operations = 2 * made.work.active_weights * 8000
    assert made.prompt(8000) > operations / (made.gpu.bf16 * 2e12 * tensor)


def test_nvlink_is_faster_than_pcie_and_both_than_one_gpu() -> None:
    one, linked, apart = (
        line("llama-3.1-8b-instruct", "H100"),
        line("llama-3.1-8b-instruct", "H100", 2, nvlink=True),
        line("llama-3.1-8b-instruct", "H100", 2),
    )
    assert linked.decode() > apart.decode() > one.decode()
    assert linked.prompt(8000) < apart.prompt(8000)


def test_a_pipeline_hastens_no_single_stream_but_the_whole() -> None:
    one, staged = line("llama-3.1-8b-instruct", "L40S"), line("llama-3.1-8b-instruct", "L40S", pipeline=2)
    assert staged.decode() == one.decode()
    assert one.throughput(128, 512, 256) < staged.throughput(128, 512, 256) < 2 * one.throughput(128, 512, 256)


def test_more_requests_share_a_step() -> None:
    made = line("llama-3.1-8b-instruct", "H100")
    rates = [made.throughput(number, 512, 256) for number in (1, 4, 16, 64, 256)]
    assert rates == sorted(rates)
    assert rates[-1] < 256 * rates[0]


def test_longer_prompts_and_contexts_take_longer() -> None:
    made = line("llama-3.1-8b-instruct", "L4")
    assert made.prompt(8000) > 7 * made.prompt(1000)
    assert made.decode(100_000) < made.decode(1000) < made.decode(0)


def test_quantised_weights_are_read_sooner() -> None:
    awq = line("meta-llama-3.1-70b-instruct-awq-int4", "A100", 2, nvlink=True)
    assert awq.decode() > 1.5 * line("llama-3.3-70b-instruct", "A100", 2, nvlink=True).decode()


def test_heads_that_cannot_be_cut_are_read_by_all() -> None:
    def cache(tensor: int) -> float:
        made = line("llama-3.3-70b-instruct", "H100", tensor, nvlink=True)  # 8 heads of keys and values
        return made.step(1, 100_000) - made.step(1, 0)

    assert cache(8) == pytest.approx(cache(4) / 2)
    assert cache(16) == pytest.approx(cache(8))


# What people published, which the constants have seen with many others: a change that loses these loses much.
@pytest.mark.parametrize(
    ("model", "name", "tensor", "nvlink", "measured"),
    [
        # tenstorrent/tt-inference-server#340: 9.6 ms for each token of Qwen3-30B-A3B on an A100
        ("qwen3-30b-a3b", "A100", 1, False, 1000 / 9.6),
        # vllm-project/vllm#22331: 90 tokens/s of gpt-oss-120b on an A100
        ("gpt-oss-120b", "A100", 1, False, 90.0),
    ],
)
def test_published_single_streams(model: str, name: str, tensor: int, nvlink: bool, measured: float) -> None:
    assert 1 / DECODE_BAND < line(model, name, tensor, nvlink=nvlink).decode() / measured < DECODE_BAND


@pytest.mark.parametrize(
    ("made", "requests", "prompt", "output", "measured"),
    [
        # gpustack/gpustack, performance lab: 1,000 prompts at once, of which vLLM runs 256
        (line("gpt-oss-120b", "A100"), 256, 215.3, 195.3, 2372.0),
        # Massed-Compute/gpu-benchmark: 32 requests at a time
        (line("llama-3.1-8b-instruct", "H100 PCIe"), 32, 128, 128, 2802.0),
        (line("llama-3.3-70b-instruct", "PRO 6000", 2), 32, 128, 128, 462.0),
    ],
)
def test_published_throughput(made: Roofline, requests: int, prompt: float, output: float, measured: float) -> None:
    assert 1 / THROUGHPUT_BAND < made.throughput(requests, prompt, output) / measured < THROUGHPUT_BAND
