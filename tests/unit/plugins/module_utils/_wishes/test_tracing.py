"""What engines are told about traces."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import WishError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.launch import launches_on
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import Wish, read_wishes
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.tracing import traced

from tests.unit import fleets

JAEGER = "http://10.0.0.31:4317"


def wish(**more: Any) -> Wish:
    (one,), _ = read_wishes([{"name": "tiny", "source": "/srv/models/tiny", **more}])
    return one


def test_a_model_is_not_traced_unless_it_says_so() -> None:
    assert traced([wish(), wish(tracing=0)], "") == [wish(), wish()]


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [(JAEGER, "grpc"), ("http://jaeger:4317/", "grpc"), ("https://traces.example.com/otlp/v1/traces", "http/protobuf")],
)
def test_a_part_of_the_requests_is_chosen_by_the_ids_of_their_traces(endpoint: str, protocol: str) -> None:
    (one,) = traced([wish(tracing=0.05)], endpoint)
    assert one.extra_args == {"otlp-traces-endpoint": endpoint}
    assert one.env == {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol,
        "OTEL_SERVICE_NAME": "tiny",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.05",
    }


def test_what_env_says_itself_stays() -> None:
    (one,) = traced([wish(tracing="1", env={"OTEL_SERVICE_NAME": "chat"})], JAEGER)
    assert (one.env["OTEL_SERVICE_NAME"], one.env["OTEL_TRACES_SAMPLER_ARG"]) == ("chat", "1.0")


@pytest.mark.parametrize("endpoint", ["grpc://jaeger:4317", "https://jaeger:4317", "jaeger:4317", "http://jaeger"])
def test_addresses_that_vllm_would_not_understand_are_refused(endpoint: str) -> None:
    with pytest.raises(WishError, match=r"^fleet_otlp_endpoint: .* is neither one for gRPC"):
        traced([wish(tracing=1)], endpoint)
    assert traced([wish()], endpoint)


def test_without_an_address_there_is_nothing_to_trace_to() -> None:
    with pytest.raises(WishError) as caught:
        traced([wish(tracing=1)], "")
    assert caught.value.problems == [
        "vllm_models[0].tracing: there is no Jaeger: give the group monitoring a host, or set fleet_otlp_endpoint."
    ]


@pytest.mark.parametrize("wrong", [5, -0.1, "all", True, False, [], 1.01])
def test_a_part_is_from_0_to_1(wrong: Any) -> None:
    with pytest.raises(WishError, match=r"tracing: .* is not a number from 0 to 1"):
        wish(tracing=wrong)


def test_every_instance_says_which_one_it_is() -> None:
    model = {"name": "llama-3.1-8b-instruct", "replicas": 2, "parallelism": {"tensor": 1}}
    arguments = {"env": {"OTEL_RESOURCE_ATTRIBUTES": "site=a"}, "extra_args": {"enforce-eager": True}}
    plan = fleets.plan([model | arguments], fleets.host("gpu1", 2))
    for instance in plan["instances"]:
        instance["engine_args"]["otlp-traces-endpoint"] = JAEGER
    assert [launch["env"]["OTEL_RESOURCE_ATTRIBUTES"] for launch in launches_on(plan, "gpu1")] == [
        f"site=a,service.instance.id=llama-3.1-8b-instruct-{number}" for number in (1, 2)
    ]
    assert "OTEL_RESOURCE_ATTRIBUTES" not in only_env(fleets.plan([model], fleets.host("gpu1", 2)))


def only_env(plan: dict[str, Any]) -> dict[str, str]:
    return launches_on(plan, "gpu1")[0]["env"]
