"""The stand-in for vLLM inside the process of a test, and a client of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import OpenAiClient

from tests.stand_in.server import Engine, Settings


@contextmanager
def serving(settings: Settings) -> Iterator[Engine]:
    """An engine that answers on a port of its own."""
    engine = Engine(settings, ("127.0.0.1", 0))
    thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()


def client(engine: Engine) -> OpenAiClient:
    """Who asks it."""
    return OpenAiClient(f"http://127.0.0.1:{engine.server_port}")
