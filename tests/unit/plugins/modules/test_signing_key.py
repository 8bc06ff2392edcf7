"""The key of a repository, from its address to the file on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import places
from ansible_collections.gpuhosts.vllm.plugins.modules import signing_key

from tests.unit.plugins.conftest import RunModule

FILES = Path(__file__).parents[2] / "fixtures/keys"
ED25519, RSA = "A953E7275C1F046814181AD14A5A4FF0C39F32FE", "AD7F37F8EEB29DECB696FD8CEBB8BAF619F9FBF4"


@pytest.fixture(autouse=True)
def owned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root gives files away."""
    monkeypatch.setattr(places.Place, "is_owned", lambda self: self.path.stat().st_mode & 0o777 == self.mode)
    monkeypatch.setattr(places.os, "chown", lambda *_: None)


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "url": (FILES / "two.asc").as_uri(),
        "path": str(tmp_path / "etc/apt/keyrings/vendor.asc"),
        "fingerprint": "A953 E727 5C1F 0468 1418  1AD1 4A5A 4FF0 C39F 32FE",
    }


def test_of_several_keys_the_one_is_written(run_module: RunModule, arguments: dict[str, Any]) -> None:
    path = Path(arguments["path"])
    assert run_module(signing_key, **arguments, _ansible_check_mode=True)["changed"]
    assert not path.exists()

    result = run_module(signing_key, **arguments)

    assert (result["changed"], result["fingerprint"]) == (True, ED25519)
    assert path.read_text() == (FILES / "one.asc").read_text()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_key_is_written_anew_when_it_was_renewed_or_is_not_as_it_shall_be(
    run_module: RunModule, arguments: dict[str, Any]
) -> None:
    path = Path(arguments["path"])
    run_module(signing_key, **arguments)
    assert not run_module(signing_key, **arguments)["changed"]
    assert not run_module(signing_key, **arguments | {"url": "file:///nowhere"}, _ansible_check_mode=True)["changed"]

    path.chmod(0o600)
    assert run_module(signing_key, **arguments)["changed"]

    path.write_text(path.read_text() + "\n")  # the same key in other words
    assert not run_module(signing_key, **arguments, _ansible_check_mode=True)["changed"]
    assert run_module(signing_key, **arguments)["changed"]
    assert not run_module(signing_key, **arguments)["changed"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": ED25519[::-1]}, f"has no key {ED25519[::-1]}; it has {ED25519}, {RSA}. Where the vendor has"),
        ({"url": Path(__file__).as_uri()}, "this is no file of OpenPGP keys"),
        ({"url": "file:///nowhere"}, "No such file or directory"),
    ],
)
def test_what_is_not_that_key_is_refused(
    run_module: RunModule, arguments: dict[str, Any], change: dict[str, str], said: str
) -> None:
    result = run_module(signing_key, **arguments | change)

    assert result["failed"]
    assert said in result["msg"]
    assert not Path(arguments["path"]).exists()
