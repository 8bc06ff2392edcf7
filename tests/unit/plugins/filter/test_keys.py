"""What the front door gets to know of keys, and which of them are refused until the message is followed."""

from __future__ import annotations

import hashlib
import subprocess
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.filter.keys import client_keys, key_mistakes

GOOD = "0123456789abcdef01234567"
HASH = hashlib.sha256(b"another").hexdigest()


def test_a_key_is_known_by_the_hashes_of_its_values() -> None:
    (key,) = client_keys([{"name": "team", "keys": [GOOD], "sha256": [HASH], "models": ["small"], "concurrency": 2}])

    assert key == {
        "name": "team",
        "sha256": [hashlib.sha256(GOOD.encode()).hexdigest(), HASH],
        "models": ["small"],
        "requests_per_minute": 0,
        "concurrency": 2,
    }


def test_the_engines_own_key_is_one_without_limits() -> None:
    (key,) = client_keys([], GOOD)

    assert key == {
        "name": "fleet",
        "sha256": [hashlib.sha256(GOOD.encode()).hexdigest()],
        "models": [],
        "requests_per_minute": 0,
        "concurrency": 0,
    }
    assert client_keys([]) == []


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"name": "A; b", "keys": [GOOD]}, "nginx_lb_keys, A; b needs another name"),
        ({"name": "fleet", "keys": [GOOD]}, "fleet is the engines' own"),
        ({"name": "a"}, "nginx_lb_keys, a has neither keys nor sha256"),
        ({"name": "a", "keys": ["short"]}, "nginx_lb_keys, a has a value that is no token of at least 24"),
        ({"name": "a", "keys": ["with a blank in it 0123456789"]}, "no token of at least 24"),
        ({"name": "a", "sha256": ["0123"]}, "nginx_lb_keys, a.sha256 has what is no SHA-256"),
        ({"name": "a", "keys": [GOOD], "models": ["huge"]}, "a.models has huge; there are small, big."),
        ({"name": "a", "keys": [GOOD, GOOD]}, "a value is that of a and a"),
    ],
)
def test_what_could_be_guessed_or_would_break_the_configuration_is_refused(key: dict[str, Any], said: str) -> None:
    (mistake,) = key_mistakes([key], models=["small", "big"])

    assert said in mistake
    assert GOOD not in mistake


def test_two_clients_have_names_and_values_of_their_own() -> None:
    keys = [{"name": "a", "keys": [GOOD]}, {"name": "b", "keys": [GOOD]}, {"name": "b", "sha256": [HASH]}]

    assert key_mistakes(keys) == [
        "nginx_lb_keys, b is there twice. Put all its values into one.",
        "nginx_lb_keys: a value is that of a and b. Give each a value of its own. Make one with: openssl rand -hex 32",
    ]
    assert "that of a and fleet" in key_mistakes(keys[:1], GOOD)[0]


def test_an_engines_key_that_no_header_takes_is_refused() -> None:
    (mistake,) = key_mistakes([], 'with " and $')
    assert mistake.startswith("vllm_api_key has characters that no bearer token has")


def test_what_the_messages_say_makes_keys_that_are_accepted() -> None:
    said = key_mistakes([{"name": "a"}, {"name": "b", "sha256": ["0"]}])
    make, digest = (sentence.rpartition(": ")[2] for sentence in said)
    value, words = (subprocess.check_output(["sh", "-c", said], text=True) for said in (make, digest))

    assert key_mistakes([{"name": "a", "keys": [value.strip()]}, {"name": "b", "sha256": [words.split()[0]]}]) == []


def test_models_are_held_against_those_there_are_only_where_they_are_known() -> None:
    assert key_mistakes([{"name": "a", "keys": [GOOD], "models": ["huge"]}]) == []
