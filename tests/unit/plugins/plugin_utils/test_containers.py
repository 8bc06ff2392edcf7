"""Which hosts get Docker, and what is refused before any host is contacted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.containers import has_containers, mistakes

DIGEST = f"sha256:{'0f' * 32}"


def host(**variables: Any) -> dict[str, Any]:
    return {"group_names": ["gpu_hosts", "rack1"], "vllm_image_digest": DIGEST, **variables}


def models(**options: Any) -> dict[str, Any]:
    return {"vllm_models": [{"name": "small"}, {"name": "big", "runtime": "docker", **options}]}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"vllm_models": [{"name": "small"}]}, False),
        (models(), True),
        (models(hosts="auto"), True),
        (models(hosts="gpu1"), True),
        (models(hosts=["rack1", "gpu9"]), True),
        (models(hosts="rack2"), False),
        (models(hosts=["gpu2"]), False),
        ({"hardware_containers": True}, True),
        ({"hardware_containers": False, **models()}, False),
        (models(hosts="rack2") | {"hardware_containers": True}, True),
        ({"vllm_models": ["no mapping"]}, False),
    ],
)
def test_a_host_gets_docker_where_a_model_in_containers_may_be_planned(
    variables: dict[str, Any], expected: bool
) -> None:
    assert has_containers("gpu1", host(**variables)) is expected


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (models(), ""),
        (models(hosts="rack2") | {"vllm_image_digest": ""}, ""),
        (models() | {"hardware_containers": True}, ""),
        (models() | {"hardware_containers": False}, "hardware_containers is false. Take that away, or keep the model"),
        (models() | {"vllm_image_digest": ""}, "no image is pinned. Set vllm_image_digest to what `docker buildx"),
        (models() | {"vllm_image_digest": "v0.33.0"}, "vllm_image_digest is 'v0.33.0'; it is sha256: and 64"),
        (models() | {"vllm_image_file": "/srv/i.tar"}, "Set vllm_image_file_checksum to sha256: and what `sha256sum`"),
        (models() | {"vllm_image_file": "/srv/i.tar", "vllm_image_file_checksum": DIGEST}, ""),
    ],
)
def test_what_could_not_run_is_refused_with_a_remedy(variables: dict[str, Any], told: str) -> None:
    found = mistakes(["gpu1", "gpu2"], {"gpu1": host(**variables), "gpu2": host()})
    assert len(found) == bool(told)
    assert all(sentence.startswith("gpu1: ") and told in sentence for sentence in found)


def test_hosts_with_the_same_mistake_are_told_together() -> None:
    wrong = host(**models(), hardware_containers=False)
    (found,) = mistakes(["gpu1", "gpu2"], {"gpu1": wrong, "gpu2": wrong})
    assert found.startswith("gpu1, gpu2: big may be planned here")
