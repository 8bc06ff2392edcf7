"""What a human wants to see in the end: the plan, the addresses, and an answer that arrives token by token."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

from .hosts import HOSTS
from .settings import REPORTS, STATE, LabError

FRONT_DOOR = "172.29.250.11"
PROMETHEUS = "172.29.250.31:9090"

_PROMPT = "Tell me a story about a machine room at night."
_TOKENS = 48
_TIMEOUT_SECONDS = 60


def show() -> None:
    """Print the plan and the addresses of everything that runs, then stream a completion through NGINX."""
    try:
        plan = json.loads((REPORTS / "plan.json").read_text())
        table = (REPORTS / "plan.txt").read_text()
        api_key = (STATE / "api_key").read_text().strip()
    except FileNotFoundError as error:
        raise LabError(
            f"nothing was deployed from this checkout yet ({error.filename} is missing): make lab"
        ) from error
    print(f"\n{table}")
    for name, address in addresses(plan):
        print(f"{name:<28}{address}")
    model = plan["instances"][0]["model"]
    print(f"\n{model}, streamed through http://{FRONT_DOOR}/v1\n> {_PROMPT}")
    start = time.monotonic()
    arrivals = []
    for text in stream_chat(FRONT_DOOR, api_key, model, _PROMPT, _TOKENS):
        arrivals.append(time.monotonic() - start)
        print(text, end="", flush=True)
    print()
    if not arrivals:
        raise LabError("the answer was empty")
    print(f"{len(arrivals)} pieces, the first after {arrivals[0]:.2f} s, the last after {arrivals[-1]:.2f} s")


def addresses(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and URL of everything that runs."""
    yield "Front door (NGINX)", f"http://{FRONT_DOOR}/v1"
    for instance in plan["instances"]:
        endpoint = instance["endpoint"]
        yield f"vLLM {instance['id']}", f"http://{endpoint['address']}:{endpoint['port']}/v1"
    yield "Prometheus", f"http://{PROMETHEUS}"
    for host in HOSTS:
        yield f"Node exporter {host.name}", f"http://{host.address}:9100/metrics"


def stream_chat(host: str, api_key: str, model: str, prompt: str, max_tokens: int) -> Iterator[str]:
    """The pieces of a chat completion, each as soon as it arrives."""
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_SECONDS)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": True,
    }
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise LabError(f"http://{host}/v1/chat/completions: {answer.status} {answer.read(500).decode()}")
        for line in answer:
            event = line.decode().removeprefix("data:").strip()
            if event == "[DONE]":
                return
            if event and (text := json.loads(event)["choices"][0]["delta"].get("content")):
                yield text
    except OSError as error:
        raise LabError(f"no answer from http://{host}: {error}") from error
    finally:
        connection.close()
    raise LabError("the stream broke off before its end")
