"""Writes a random-weight Llama as Hugging Face lays models out: 8 MB, always the same bytes, no torch needed.

Its vocabulary is 256 byte tokens, the special tokens and made-up words. Prompts encode to bytes (the tokenizer
has no merges), answers are made of words only, because a human reads them in the terminal: see ``_weights``.
"""

from __future__ import annotations

import array
import hashlib
import itertools
import json
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from .settings import CACHE

DIRECTORY = CACHE / "models" / "tiny-llama"

HIDDEN = 256
LAYERS = 4
HEADS = 4
KV_HEADS = 2
HEAD_DIM = HIDDEN // HEADS
INTERMEDIATE = 704
VOCABULARY = 2048
SPECIAL = ("<|begin|>", "<|end|>")
CONTEXT = 2048
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"

_READABLE = 8.0  # how far, in logits, a made-up word is ahead of a bare byte


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins of the 256 bytes, by byte value, as the ByteLevel decoder expects them."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    spare = itertools.count(256)
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def vocabulary() -> list[str]:
    """All tokens by id: bytes, special tokens, then words of two syllables, each with the blank before it."""
    syllables = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeiou"]
    blank = byte_alphabet()[ord(" ")]
    words = [blank + first + second for first, second in itertools.product(syllables, repeat=2)]
    tokens = [*byte_alphabet(), *SPECIAL]
    return tokens + words[: VOCABULARY - len(tokens)]


def bfloat16(values: list[float]) -> bytes:
    """The values as little-endian bfloat16: the upper half of each float32."""
    single = array.array("f", values)
    if sys.byteorder == "big":
        single.byteswap()
    raw = single.tobytes()
    half = bytearray(len(raw) // 2)
    half[0::2], half[1::2] = raw[2::4], raw[3::4]
    return bytes(half)


def safetensors(tensors: dict[str, tuple[list[int], bytes]]) -> bytes:
    """A safetensors file of bfloat16 tensors, given as name -> (shape, data): header length, JSON header, data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, data in tensors.values())


def _weights() -> Iterator[tuple[str, list[int], list[float]]]:
    """Name, shape and values of every tensor.

    Dimension 0 of the residual stream is a constant: it starts as 1 in every embedding and no layer writes to it.
    Through it lm_head gives each made-up word its head start over bare bytes and special tokens.
    """
    numbers = random.Random(2718)

    def matrix(rows: int, columns: int) -> list[float]:
        bound = (3 / columns) ** 0.5  # uniform with variance 1/columns
        return [bound * (2 * numbers.random() - 1) for _ in range(rows * columns)]

    def into_residual(columns: int) -> list[float]:
        return [0.0] * columns + matrix(HIDDEN - 1, columns)

    def with_first_column(rows: int, first: list[float]) -> list[float]:
        values = matrix(rows, HIDDEN)
        values[::HIDDEN] = first
        return values

    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN], with_first_column(VOCABULARY, [1.0] * VOCABULARY)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", [HIDDEN], [1.0] * HIDDEN
        yield f"{prefix}.self_attn.q_proj.weight", [HEADS * HEAD_DIM, HIDDEN], matrix(HEADS * HEAD_DIM, HIDDEN)
        for part in ("k_proj", "v_proj"):
            rows = KV_HEADS * HEAD_DIM
            yield f"{prefix}.self_attn.{part}.weight", [rows, HIDDEN], matrix(rows, HIDDEN)
        yield f"{prefix}.self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD_DIM], into_residual(HEADS * HEAD_DIM)
        yield f"{prefix}.post_attention_layernorm.weight", [HIDDEN], [1.0] * HIDDEN
        for part in ("gate_proj", "up_proj"):
            yield f"{prefix}.mlp.{part}.weight", [INTERMEDIATE, HIDDEN], matrix(INTERMEDIATE, HIDDEN)
        yield f"{prefix}.mlp.down_proj.weight", [HIDDEN, INTERMEDIATE], into_residual(INTERMEDIATE)
    yield "model.norm.weight", [HIDDEN], [1.0] * HIDDEN
    words = VOCABULARY - 256 - len(SPECIAL)
    yield (
        "lm_head.weight",
        [VOCABULARY, HIDDEN],
        with_first_column(VOCABULARY, [-_READABLE] * (VOCABULARY - words) + [_READABLE] * words),
    )


def prepare() -> None:
    """Write the model unless this version of the program has written it."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made_from = DIRECTORY.with_suffix(".made-from")
    if made_from.is_file() and made_from.read_text() == digest:
        return
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    write(DIRECTORY)
    made_from.write_text(digest)


def write(directory: Path) -> None:
    """Write the model's five files into an existing directory."""
    begin, end = SPECIAL
    tokens = vocabulary()
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "vocab_size": VOCABULARY,
            "bos_token_id": tokens.index(begin),
            "eos_token_id": tokens.index(end),
        },
        "generation_config.json": {"bos_token_id": tokens.index(begin), "eos_token_id": tokens.index(end)},
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [
                {
                    "id": tokens.index(token),
                    "content": token,
                    "special": True,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                }
                for token in SPECIAL
            ],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": {token: index for index, token in enumerate(tokens)}, "merges": []},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": begin,
            "eos_token": end,
            "model_max_length": CONTEXT,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    tensors = {name: (shape, bfloat16(values)) for name, shape, values in _weights()}
    (directory / "model.safetensors").write_bytes(safetensors(tensors))
