"""The names of the directories of the store of models."""

from __future__ import annotations

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_files import is_hub_id
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_store import place_of
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("source", "revision", "place"),
    [
        ("acme/tiny", None, "acme--tiny--main"),
        ("acme/tiny", "v1.0-rc.2", "acme--tiny--v1.0-rc.2"),
        ("acme/tiny", "refs/pr/7", "acme--tiny--refs--pr--7"),
        ("gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", "gpt2--607a30d783dfa663caf39e06633721c8d4cfcd7e"),
        ("acme/tiny", "a--b", "acme--tiny--.a.2d..2d.b"),
        ("gpt2", "a/b", "gpt2--.a.2f.b"),
    ],
)
def test_the_usual_ones_have_the_names_that_they_always_had(source: str, revision: str | None, place: str) -> None:
    assert place_of(source, revision) == place


SOURCES = st.text("ab-/.", min_size=1, max_size=6).filter(is_hub_id)
REVISIONS = st.text("ab-/.2f", min_size=1, max_size=8)
MODELS = st.tuples(SOURCES, REVISIONS)


@given(MODELS, MODELS)
def test_two_models_never_share_a_directory(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (place_of(*one) == place_of(*other)) is (one == other)


def test_those_that_did_do_not() -> None:
    models = [("a/b", "c/d"), ("a/b", "c--d"), ("a", "b/c/d"), ("a", "b--c/d"), ("a/b", "c-/d"), ("a/b", "c/-d")]
    assert len({place_of(*model) for model in models}) == len(models)


def test_a_place_is_one_directory() -> None:
    assert not {"/", "\0"} & set(place_of("acme/tiny", "/../x"))
