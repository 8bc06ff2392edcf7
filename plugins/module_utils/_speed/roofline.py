"""How fast an engine decodes and reads prompts: a roofline with the overheads of every layer; private.

A step of a batch takes what reading the weights and the cache takes, or computing if that takes longer, and then what
no roofline has: launching the kernels of each layer, two all-reduces per layer where tensor parallelism joins GPUs, and
the scheduler's work for each request. The form is usual (Williams, Waterman and Patterson: Roofline, 2009; the
all-reduce by Thakur, Rabenseifner and Gropp, 2005); :class:`Constants` were fitted to public measurements by
``tests/benchmarks/speed_fit.py``, and ``tests/benchmarks/speed.py`` scores them.

They describe the whole, not the parts: constants stand in for one another. What the model cannot tell is in
docs/sizing.md: tensor parallel sizes for throughput over PCIe above all.
"""

from __future__ import annotations

from dataclasses import dataclass

from .gpus import GpuSpeed
from .work import Work

__all__ = ["CONSTANTS", "DECODE_BAND", "FIRST_TOKEN_BAND", "THROUGHPUT_BAND", "Constants", "Roofline"]


@dataclass(frozen=True)
class Constants:
    """What neither the model nor the GPU tells; times in seconds.

    ``efficiency`` is the share of the memory's nominal bandwidth that 16-bit weights are read with, ``narrow`` that of
    8-bit and ``packed`` that of 4-bit ones, which are unpacked on the way. ``mfu`` is the share of the tensor cores'
    rate that is reached, ``mfu_experts`` that of mixtures. ``layer`` is what every layer takes besides and ``router``
    what a layer of experts takes on top, ``older`` times as much on GPUs without fp8. ``request`` is what each
    request of a batch takes in a step, ``admit`` once; vLLM before 0.11 takes ``before`` times as much of all these.
    ``hop_nvlink`` and ``hop_pcie`` are an all-reduce of a few tokens, ``wire`` the share of the rate that a large
    one reaches. ``tail`` is the part of a run in which the batch is full.
    """

    efficiency: float
    narrow: float
    packed: float
    mfu: float
    mfu_experts: float
    layer: float
    router: float
    before: float
    older: float
    hop_nvlink: float
    hop_pcie: float
    wire: float
    request: float
    admit: float
    tail: float


CONSTANTS = Constants(
    efficiency=0.9,
    narrow=0.66,
    packed=0.8,
    mfu=0.62,
    mfu_experts=0.39,
    layer=70e-6,
    router=40e-6,
    before=1.68,
    older=1.3,
    hop_nvlink=10e-6,
    hop_pcie=17e-6,
    wire=0.3,
    request=80e-6,
    admit=3e-3,
    tail=0.9,
)
STEP_TOKENS = 8192  # of prompts in one step: vLLM's max-num-batched-tokens on large GPUs (engine/arg_utils.py)
# By what factor a measurement may differ from the prediction, either way: nine of ten rows of sources lie inside that
# the constants were not fitted to.
DECODE_BAND = 1.5
THROUGHPUT_BAND = 1.85
FIRST_TOKEN_BAND = 3.5  # of 41 rows, some of which had read the beginning of the prompt before


@dataclass(frozen=True)
class Roofline:
    """One shape of a model on GPUs of one type.

    ``nvlink``: whether it joins the GPUs of a stage. ``current``: vLLM 0.11 or newer.
    """

    work: Work
    gpu: GpuSpeed
    tensor: int = 1
    pipeline: int = 1
    nvlink: bool = False
    current: bool = True
    constants: Constants = CONSTANTS

    def step(self, requests: float, context: float) -> float:
        """Seconds of one decoding step of so many requests, each ``context`` tokens long: every one gets a token."""
        fixed = self.constants
        heads = min(self.tensor, self.work.kv_heads)
        weights = self.work.weight_bytes(requests) / self.tensor / self._read_rate()
        cache = requests * (self.work.kv_bytes(context) / heads + self.work.state_bytes / self.tensor)
        memory = weights + cache / (self.gpu.memory * 1e9 * fixed.efficiency)
        return (
            max(memory, self._compute(requests, context))
            + self._overhead(requests)
            + self._before * fixed.request * requests
        )

    def decode(self, context: float = 1000.0) -> float:
        """Tokens/s of one request alone."""
        return 1 / self.step(1, context)

    def prompt(self, tokens: float) -> float:
        """Seconds to read a prompt of so many tokens with nothing else running: the time to the first token."""
        weights = self.work.weight_bytes(tokens) / self.tensor / self._read_rate()
        return max(weights, self._compute(tokens, tokens / 2)) + self._overhead(tokens)

    def throughput(self, requests: float, prompt: float, output: float) -> float:
        """Output tokens/s with so many requests at a time, each of ``prompt`` and ``output`` tokens.

        Prompts are read in the steps that decode for the others; where there are more of them than such steps hold,
        they have steps of their own. The stages of a pipeline work at the same time, each on its part of the requests.
        """
        at_once = max(1.0, requests / self.pipeline)
        reading = self._compute(prompt, prompt / 2) + 2 * self.work.layers * self._wire(prompt)
        more = max(0.0, at_once * prompt / STEP_TOKENS - output)
        steps = output * self.step(at_once, prompt + output / 2) + more * self._overhead(1)
        each = reading + self._before * self.constants.admit
        return self.constants.tail * at_once * self.pipeline * output / (at_once * each + steps)

    @property
    def _before(self) -> float:
        return 1.0 if self.current else self.constants.before

    def _read_rate(self) -> float:
        """Bytes/s at which a GPU reads weights."""
        fixed = self.constants
        share = {16: fixed.efficiency, 8: fixed.narrow}.get(self.work.bits, fixed.packed)
        return self.gpu.memory * 1e9 * share

    def _compute(self, tokens: float, context: float) -> float:
        """Seconds of the tensor cores for so many tokens at a context."""
        operations = tokens * (2 * self.work.active_weights + 4 * context * self.work.attention_width)
        rate = self.gpu.fp8 if self.work.bits == 8 and self.gpu.fp8 else self.gpu.bf16
        share = self.constants.mfu_experts if self.work.experts else self.constants.mfu
        return operations / (self.tensor * rate * 1e12 * share)

    def _overhead(self, tokens: float) -> float:
        """Seconds of a step that neither memory nor tensor cores explain."""
        fixed = self.constants
        each = fixed.layer + (fixed.router if self.work.experts else 0.0)
        each *= self._before * (1.0 if self.gpu.fp8 else fixed.older)
        return self.work.layers * (each + 2 * self._all_reduce(tokens))

    def _all_reduce(self, tokens: float) -> float:
        """Seconds to add up the activations of so many tokens over the GPUs of a stage."""
        hop = self.constants.hop_nvlink if self.nvlink else self.constants.hop_pcie
        return hop + self._wire(tokens) if self.tensor > 1 else 0.0

    def _wire(self, tokens: float) -> float:
        """Seconds that their activations (16 bits each) are on the way, in a ring."""
        rate = self.gpu.nvlink / 2 if self.nvlink else self.gpu.pcie
        message = 2 * (self.tensor - 1) / self.tensor * tokens * self.work.hidden * 2
        return message / (max(rate, 1.0) * 1e9 * self.constants.wire)
