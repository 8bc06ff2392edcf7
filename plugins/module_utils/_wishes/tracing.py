"""What an engine is told about traces, by the wishes; pure, private to the collection.

vLLM takes one address, and by OTEL_EXPORTER_OTLP_TRACES_PROTOCOL what is spoken there: over gRPC always without
encryption, whatever the address says (vllm/tracing/otel.py). The choice of what is traced is OpenTelemetry's own,
https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased: by the ID of the trace, so that all engines that
a request comes to choose alike, and not by the flag that it comes with, which any client can set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .._errors import WishError
from .read import Wish

__all__ = ["ENDPOINT", "traced"]

ENDPOINT = "otlp-traces-endpoint"  # of vLLM's options
_GRPC = re.compile(r"http://[^/\s]+:\d+/?")
_HTTP = re.compile(r"https?://\S+/v1/traces")


def traced(wishes: Sequence[Wish], endpoint: str) -> list[Wish]:
    """The wishes with what ``tracing`` means in ``extra_args`` and ``env``; what ``env`` says itself stays.

    :param endpoint: where spans go, ``http://HOST:4317`` (gRPC) or ``http://HOST:4318/v1/traces``
    :raises WishError: a model is to be traced, and there is no such address.
    """
    places = [f"{wish.where}.tracing" for wish in wishes if wish.tracing]
    if places and not endpoint:
        lacking = "there is no Jaeger: give the group monitoring a host, or set fleet_otlp_endpoint."
        raise WishError([f"{place}: {lacking}" for place in places])
    if places and not (_GRPC.fullmatch(endpoint) or _HTTP.fullmatch(endpoint)):
        shapes = "neither one for gRPC, http://jaeger:4317, nor one for HTTP, https://jaeger:4318/v1/traces"
        raise WishError([f"fleet_otlp_endpoint: {endpoint!r} is {shapes}."])
    return [_traced(wish, endpoint) if wish.tracing else wish for wish in wishes]


def _traced(wish: Wish, endpoint: str) -> Wish:
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf" if _HTTP.fullmatch(endpoint) else "grpc",
        "OTEL_SERVICE_NAME": wish.name,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(wish.tracing),
    }
    return replace(wish, extra_args={ENDPOINT: endpoint, **wish.extra_args}, env={**variables, **wish.env})
