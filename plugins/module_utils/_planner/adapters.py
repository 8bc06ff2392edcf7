"""The engine options that LoRA adapters need, by the wishes and what was read of the adapters; pure, private.

They are found before anything is planned, so that the account counts them, and are chosen so that adapters come and go
without a restart: the slots of a batch and the adapters that are kept in the host's memory do not follow their number,
and only a rank above all before needs larger buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._errors import WishError
from .._releases.lora import without_lora
from .._releases.values import LORA_RANKS
from .._wishes.read import Adapter, Wish

__all__ = ["SLOTS", "with_adapters"]

SLOTS = 4  # adapters that one batch may mix; each has buffers on every GPU
RANK = 16  # vLLM's own default of max-lora-rank, enough for most adapters
KEPT = 16  # adapters in the host's memory, from where a slot is filled; nothing is taken before one is there

Facts = Mapping[str, Mapping[str, Any]]


def with_adapters(wishes: Sequence[Wish], facts: Facts, version: str) -> tuple[list[Wish], list[str]]:
    """The wishes with the options that their adapters need in ``extra_args``, and warnings.

    What ``extra_args`` says itself stays. ``facts`` are those of ``model_facts``, by the names of models and adapters,
    ``version`` is vLLM's.

    :raises WishError: an adapter that no engine takes, or not one with these options, or not of this model.
    """
    problems: list[str] = []
    warnings: list[str] = []
    extended = []
    for wish in wishes:
        problems += _of_architecture(wish, facts, version)
        options = _options(wish, facts, problems, warnings) if wish.lora else {}
        extended.append(replace(wish, extra_args={**options, **wish.extra_args}))
    if problems:
        raise WishError(problems)
    return extended, warnings


def _options(wish: Wish, facts: Facts, problems: list[str], warnings: list[str]) -> dict[str, Any]:
    given = wish.extra_args
    if given.get("enable-lora") is False:
        problems.append(f"{wish.where}.extra_args: 'enable-lora' is false, and lora lists adapters; keep one of them.")
    if int(given.get("api-server-count", 1)) > 1:
        problems.append(
            f"{wish.where}.extra_args: 'api-server-count' is above 1, and one API server only loads an adapter; leave "
            "it out, or lora."
        )
    slots, kept = int(given.get("max-loras", SLOTS)), given.get("max-cpu-loras")
    if kept is not None and int(kept) < slots:
        problems.append(
            f"{wish.where}.extra_args: 'max-cpu-loras' is {kept}, and a batch may mix {slots} (max-loras); raise it, "
            "or leave it out."
        )
    read = [facts.get(adapter.name, {}).get("adapter") or {} for adapter in wish.lora]
    for adapter, known in zip(wish.lora, read):
        warnings += _warnings(wish, adapter, known, facts.get(adapter.name, {}))
    ranks = {adapter.name: known.get("rank") or 0 for adapter, known in zip(wish.lora, read)}
    most = max(ranks.values())
    chosen = given.get("max-lora-rank") or next((rank for rank in LORA_RANKS if rank >= max(most, RANK)), None)
    for number, adapter in enumerate(wish.lora):
        where = f"{wish.where}.lora[{number}]"
        if ranks[adapter.name] > LORA_RANKS[-1]:
            problems.append(f"{where}: {adapter.name} has rank {ranks[adapter.name]}; vLLM takes {LORA_RANKS[-1]}.")
        elif chosen is not None and ranks[adapter.name] > int(chosen):
            problems.append(
                f"{where}: {adapter.name} has rank {ranks[adapter.name]}, and extra_args.max-lora-rank is {chosen}; "
                "raise that, or leave it out."
            )
    room = max(KEPT, _power_of_two(len(wish.lora)), slots)
    return {"enable-lora": True, "max-loras": SLOTS, "max-lora-rank": chosen, "max-cpu-loras": room}


def _of_architecture(wish: Wish, facts: Facts, version: str) -> Iterable[str]:
    """Whether vLLM has no adapters for a model; of one that was not read, or is run by transformers, nobody knows."""
    given, names = wish.extra_args, (facts.get(wish.name, {}).get("config") or {}).get("architectures")
    asked = [*(["lora"] if wish.lora else []), *(["extra_args.enable-lora"] if given.get("enable-lora") else [])]
    if not (asked and names and isinstance(names, list)) or given.get("model-impl", "auto") not in ("auto", "vllm"):
        return
    if without_lora(version).issuperset(map(str, names)):
        yield (
            f"{wish.where}.{asked[0]}: vLLM {version} takes no adapters for {names[0]}, the architecture of "
            f"{wish.source}. Leave {' and '.join(asked)} out, and serve a model that the adapter is merged into."
        )


def _warnings(wish: Wish, adapter: Adapter, known: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterable[str]:
    """What may be wrong with an adapter; the rank of one that could not be read is not known."""
    if not known.get("rank"):
        reason = facts.get("problem", "its adapter_config.json was not read")
        yield (
            f"{wish.name}: the rank of the adapter {adapter.name} is not known ({reason}). Above {RANK}, set "
            "max-lora-rank in extra_args."
        )
    base = str(known.get("base") or "")
    if base and _last(base) not in (_last(wish.source), wish.name.lower()):
        yield f"{wish.name}: the adapter {adapter.name} was made for {base}, not for {wish.source}"


def _last(source: str) -> str:
    """A model without the place where it lies."""
    return source.rstrip("/").rpartition("/")[2].lower()


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
