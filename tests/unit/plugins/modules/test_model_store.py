"""What a look into the store finds, and what it removes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import model_unit
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.hub import Repository, manifest_from_hub
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_fetch import Fetch
from ansible_collections.gpuhosts.vllm.plugins.modules import model_manifest, model_store

from tests import hub
from tests.unit.plugins.conftest import RunModule

Look = Callable[..., dict[str, Any]]
OLD, NEW = "acme--tiny--main", "acme--tiny--v1"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """With the same model at two revisions."""
    model, directory = tmp_path / "hub/acme/tiny", tmp_path / "store"
    model.mkdir(parents=True)
    directory.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(os.urandom(9000))
    with hub.served(tmp_path / "hub") as url:
        for revision in ("main", "v1"):
            manifest = manifest_from_hub(Repository("acme/tiny", revision, url), "auto")
            source = {"url": f"{url}/acme/tiny/resolve/{hub.COMMIT}", "token": "", "is_hub": True}
            entry = {"place": f"acme--tiny--{revision}", "manifest": manifest, "sources": [source]}
            basics = {"status": str(tmp_path / "status.json"), "parallel": 1, "patience": 1}
            fetch = Fetch({"directory": str(directory), "models": [entry], **basics})
            fetch.run()
            assert fetch.state == "done"
    return directory


@pytest.fixture
def look(run_module: RunModule, store: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    monkeypatch.setattr(model_store, "unusable", lambda _: "")  # the store of a test is below /tmp
    monkeypatch.setattr(model_unit, "RUN", store / "no such directory")

    def run(*revisions: str, **options: Any) -> dict[str, Any]:
        models = [{"source": "acme/tiny", "revision": revision} for revision in revisions]
        return run_module(model_store, directory=str(store), models=models, **options)

    return run


def test_what_is_there_and_what_is_not(look: Look) -> None:
    found = look("v1", "v2")
    assert [(model["place"], model["complete"]) for model in found["models"]] == [
        (NEW, True),
        ("acme--tiny--v2", False),
    ]
    assert found["models"][0]["commit"] == hub.COMMIT
    assert (found["missing"], found["changed"]) == (["acme--tiny--v2"], False)
    assert found["free"] > 0


@pytest.mark.parametrize("damage", ["cut", "gone", "touched"])
def test_a_file_that_is_another_one_is_found_by_size_and_age(look: Look, store: Path, damage: str) -> None:
    file = store / NEW / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes())
    assert look("v1")["models"][0]["damaged"] == ["model.safetensors"]


def test_rot_is_found_when_all_is_read(look: Look, store: Path) -> None:
    file = store / NEW / "model.safetensors"
    times, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert look("v1")["missing"] == []
    assert look("v1", verify=True)["models"][0]["damaged"] == ["model.safetensors"]


def test_what_nothing_needs_is_listed_and_goes_on_request(look: Look, store: Path, tmp_path: Path) -> None:
    (store / "own-things").mkdir()
    for name in ("llama.partial", ".llama.partial"):  # somebody else's
        (store / name).mkdir()
    (store / ".a--b.partial").touch()
    (store / ".acme--tiny--v0.partial").mkdir()
    used = tmp_path / "instances"
    used.mkdir()
    (used / "tiny-1.yaml").write_text(f"model: {store / OLD}\n")
    assert list(look("v1", references=[str(used)])["unused"]) == [".acme--tiny--v0.partial"]
    (used / "tiny-1.yaml").write_text(f"model: {store / NEW}\n")
    found = look("v1", references=[str(used)])
    assert {name: size > 9000 for name, size in found["unused"].items()} == {
        OLD: True,
        ".acme--tiny--v0.partial": False,
    }
    assert look("v1", collect=True, _ansible_check_mode=True)["changed"]
    assert (store / OLD).exists()
    assert look("v1", collect=True)["changed"]
    kept = [".a--b.partial", ".llama.partial", NEW, "llama.partial", "own-things"]
    assert sorted(path.name for path in store.iterdir()) == kept
    assert not look("v1", collect=True)["changed"]


def test_a_store_goes_with_its_last_model(look: Look, store: Path) -> None:
    (store / "own-things").touch()
    assert look(collect=True)["changed"]
    assert [path.name for path in store.iterdir()] == ["own-things"]
    (store / "own-things").unlink()
    look(collect=True)
    assert not store.exists()
    assert not look(collect=True)["changed"]


def test_somebody_elses_directory_is_not_taken(look: Look, store: Path) -> None:
    (store / "acme--tiny--v2").mkdir()
    said = look("v2")["msg"]
    assert said.startswith(f"{store}/acme--tiny--v2 is there, but was not made by this role. Move it out of the way")


def test_a_directory_of_ones_own_is_held_against_its_list(look: Look, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (own / "SHA256SUMS").write_text(f"{digest}  model.safetensors\n")
    assert "msg" not in look(paths=[str(own)], verify=True)
    (own / "model.safetensors").write_bytes(b"weighty")
    assert "msg" not in look(paths=[str(own)])
    assert look(paths=[str(own)], verify=True)["msg"].startswith(f"{own}: model.safetensors is not what")


def test_a_store_where_no_engine_can_read_is_refused(run_module: RunModule) -> None:
    said = run_module(model_store, directory="/tmp/store", models=[])["msg"]
    assert said.startswith("model_store_dir is /tmp/store, and an engine has a /tmp of its own")


def test_a_disk_that_is_not_mounted_is_not_written_beside(look: Look, store: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(model_store, "unmounted", lambda _: store.parent)
    assert f"nothing is mounted at {store.parent}, as /etc/fstab wants it. Mount it there with `mount" in look()["msg"]


def test_the_list_of_files_is_read_from_the_store_before_the_hub(run_module: RunModule, store: Path) -> None:
    asked = {"directory": str(store), "source": "acme/tiny", "endpoint": "http://127.0.0.1:9"}
    found = run_module(model_manifest, **asked, revision="v1")
    assert [file["path"] for file in found["manifest"]["files"]] == ["config.json", "model.safetensors"]
    assert "does not answer" in run_module(model_manifest, **asked, revision="v2")["msg"]
    assert "the store knows the files of" in run_module(model_manifest, **asked, load_format="gguf")["msg"]
    assert json.loads((store / NEW / ".complete").read_text())["commit"] == found["manifest"]["commit"]
