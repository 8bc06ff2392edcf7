"""What a container is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.container import (
    Runtime,
    check_words,
    cleanup,
    command,
    read_by,
)

RUNTIME = Runtime("gpuhosts/vllm:0.33.0-0f3b", "/opt/vllm/lib/container.py", "cdi", "/var/lib/vllm", 120)
OPTIONS = "/etc/vllm/instances/tiny-1.yaml"
SERVE = ["vllm", "serve", "--config", OPTIONS]
RECORD: dict[str, Any] = {
    "id": "tiny-1",
    "container": {"devices": ["GPU-a", "GPU-b"]},
    "engine_args": {"model": "acme/tiny", "port": 8000},
}


def words(runtime: Runtime = RUNTIME, record: dict[str, Any] = RECORD, **variables: str) -> list[str]:
    return command(runtime, record, SERVE, variables, ["GPUHOSTS_KEEPER_TOKEN", "VLLM_API_KEY"], [OPTIONS])


def mounts(found: list[str]) -> dict[str, bool]:
    """Paths that are mounted at the same place, and whether they may be written to."""
    given = [word.removeprefix("--mount=").split(",") for word in found if word.startswith("--mount=")]
    assert all(parts[1].replace("source", "target") == parts[2] for parts in given)
    return {parts[1].removeprefix("source="): "readonly" not in parts for parts in given}


def test_the_wrapper_comes_first_and_the_engines_own_words_last() -> None:
    found = words()
    assert found[:4] == ["/usr/bin/python3", "-I", RUNTIME.wrapper, "vllm-tiny-1"]
    assert found[-5:] == ["--entrypoint=vllm", RUNTIME.image, *SERVE[1:]]
    assert cleanup(RUNTIME, "tiny-1") == found[:4], "without further words it removes"


def test_it_may_do_no_more_than_the_sandbox_of_a_unit_allows() -> None:
    assert {
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--network=host",
        "--pull=never",
        "--log-driver=local",
        "--log-opt=max-size=20m",
        "--stop-timeout=120",
        "--label=gpuhosts.vllm.instance=tiny-1",
    } <= set(words())
    assert not [word for word in words() if word.startswith(("--privileged", "--restart", "--cap-add"))]


def test_no_value_of_a_variable_is_in_the_command() -> None:
    found = words(HF_HOME="/var/lib/vllm/huggingface", NCCL_DEBUG="INFO")
    assert not any("INFO" in word for word in found)
    names = [word.removeprefix("--env=") for word in found if word.startswith("--env=")]
    assert names == ["HF_HOME", "HOME", "LOGNAME", "NCCL_DEBUG", "USER", "VLLM_API_KEY"]


def test_gpus_are_devices_by_uuid_or_nvidias_runtime_finds_them() -> None:
    assert [word for word in words() if "GPU-" in word] == [
        "--device=nvidia.com/gpu=GPU-a",
        "--device=nvidia.com/gpu=GPU-b",
    ]
    legacy = Runtime(RUNTIME.image, RUNTIME.wrapper, "legacy", RUNTIME.home, 120)
    found = words(legacy)
    assert "--runtime=nvidia" in found
    assert [word for word in found if "GPU-" in word] == ["--env=NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b"]


def test_what_the_engine_reads_is_mounted_read_only_and_what_it_writes_is_not(tmp_path: Path) -> None:
    model, template, ca = tmp_path / "a,model", tmp_path / "chat.jinja", tmp_path / "ca.pem"
    model.mkdir()
    template.touch()
    ca.touch()
    arguments = {
        "model": str(tmp_path),
        "chat-template": str(template),
        "root-path": "/opt",
        "download-dir": "/srv/hub",
    }
    found = words(
        RUNTIME,
        RECORD | {"engine_args": arguments},
        HF_HOME="/srv/huggingface",
        SSL_CERT_FILE=str(ca),
        LD_LIBRARY_PATH="/usr/lib",
    )
    assert mounts(found) == {
        "/var/lib/vllm": True,
        "/srv/huggingface": True,
        "/srv/hub": True,
        OPTIONS: False,
        str(tmp_path): False,
        str(template): False,
        str(ca): False,
    }
    comma = words(RUNTIME, RECORD | {"engine_args": {"model": str(model)}})
    assert f'--mount=type=bind,"source={model}","target={model}",readonly' in comma


def test_a_store_of_models_is_there_for_every_engine() -> None:
    runtime = Runtime(RUNTIME.image, RUNTIME.wrapper, "cdi", RUNTIME.home, 120, ["/srv/models"])
    assert mounts(words(runtime))["/srv/models"] is False


def test_adapters_that_come_later_are_seen_where_the_others_are() -> None:
    adapters = [
        {"name": "a", "source": "/srv/lora/a"},
        {"name": "b", "source": "/b"},
        {"name": "c", "source": "acme/c"},
    ]
    found = mounts(words(RUNTIME, RECORD | {"adapters": adapters}))
    assert found["/srv/lora"] is False
    assert not {"/", "/srv/lora/a", "acme"} & set(found)


def test_where_links_in_a_model_lead_to_is_read_as_well(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "0f3b").touch()
    (snapshot / "model.safetensors").symlink_to("../../blobs/0f3b")
    (snapshot / "config.json").touch()
    assert read_by({"model": str(snapshot)}, {}) == [str(snapshot), str(blobs)]


@pytest.mark.parametrize("value", ["/", "/etc", "/usr/lib", "/opt", "/not/there", "acme/tiny", 7, True, None])
def test_what_is_no_path_to_read_is_not_mounted(value: Any) -> None:
    assert read_by({"root-path": value}, {}) == []


def test_options_are_checked_in_the_image_itself_without_a_network() -> None:
    found = check_words(RUNTIME, RECORD, "print()", "/tmp/x.yaml")
    assert found[:3] == ["docker", "run", "--rm"]
    assert found[-4:] == [RUNTIME.image, "-c", "print()", "/tmp/x.yaml"]
    assert {"--network=none", "--cap-drop=ALL", "--entrypoint=python3"} <= set(found)
    assert mounts(found) == {"/tmp/x.yaml": False}
