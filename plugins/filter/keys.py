"""Filters for the keys of clients: what the front door shall know of them, and what is wrong with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Key = Mapping[str, Any]

FLEET = "fleet"  # the name of the engines' own key, by which the playbooks themselves ask
SHORTEST = 24  # characters; less could be guessed from a hash that takes no time
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what a bearer token may be made of: RFC 6750
_REMEDY = "Make one with: openssl rand -hex 32"


def client_keys(keys: Iterable[Key], engine_key: str = "") -> list[dict[str, Any]]:
    """The keys by name: SHA-256 of each of their values, the models they may use (none: all) and their limits."""
    named = [
        {
            "name": key["name"],
            "sha256": [*(_digest(value) for value in key.get("keys") or ()), *(key.get("sha256") or ())],
            "models": list(key.get("models") or ()),
            "requests_per_minute": int(key.get("requests_per_minute") or 0),
            "concurrency": int(key.get("concurrency") or 0),
        }
        for key in keys
    ]
    if engine_key:
        fleet = {"name": FLEET, "sha256": [_digest(engine_key)]}
        named.append({**fleet, "models": [], "requests_per_minute": 0, "concurrency": 0})
    return named


def key_mistakes(keys: Sequence[Key], engine_key: str = "", models: Sequence[str] = ()) -> list[str]:
    """What is wrong with keys, a sentence or two each, and never a key; ``models``: those there are, if known."""
    found = [mistake for key in keys for mistake in _of(key, models)]
    names = [key["name"] for key in keys]
    found += [f"{_one(name)} is there twice. Put all its values into one." for name in _twice(names)]
    hashes = [(digest, key["name"]) for key in client_keys(keys, engine_key) for digest in key["sha256"]]
    for digest in _twice(digest for digest, _ in hashes):
        owners = " and ".join(name for one, name in hashes if one == digest)
        found.append(f"nginx_lb_keys: a value is that of {owners}. Give each a value of its own. {_REMEDY}")
    if engine_key and not _TOKEN.fullmatch(engine_key):
        found.append(
            f"vllm_api_key has characters that no bearer token has: take letters, digits and ._~+/-. {_REMEDY}"
        )
    return found


def _of(key: Key, models: Sequence[str]) -> Iterator[str]:
    here = _one(key["name"])
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", key["name"]) or key["name"] == FLEET:
        yield f"{here} needs another name: lower-case letters, digits and ._-; {FLEET} is the engines' own."
    values, hashes = key.get("keys") or (), key.get("sha256") or ()
    if not (values or hashes):
        yield f"{here} has neither keys nor sha256. {_REMEDY}"
    if any(len(value) < SHORTEST or not _TOKEN.fullmatch(value) for value in values):
        yield f"{here} has a value that is no token of at least {SHORTEST} letters, digits and ._~+/-. {_REMEDY}"
    if any(not re.fullmatch("[0-9a-f]{64}", value) for value in hashes):
        yield f"{here}.sha256 has what is no SHA-256 in lower-case hex. Make it with: printf %s KEY | sha256sum"
    strangers = [model for model in key.get("models") or () if models and model not in models]
    if strangers:
        yield f"{here}.models has {', '.join(strangers)}; there are {', '.join(models)}. Name models of vllm_models."


def _one(name: str) -> str:
    return f"nginx_lb_keys, {name}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _twice(values: Iterable[str]) -> list[str]:
    several = list(values)
    return sorted({value for value in several if several.count(value) > 1})


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {"client_keys": client_keys, "key_mistakes": key_mistakes}
