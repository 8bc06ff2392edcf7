"""``python -m tests.stand_in serve ...``; installed as a wheel, the command ``vllm`` itself."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .arguments import VERSION, Parser, add_options
from .kinds import task_of
from .nodes import follow, meet
from .server import OOM, Engine, Settings, log

_KV_TOKENS = 65536


def settings(options: argparse.Namespace) -> Settings:
    """What the options of ``vllm serve`` and the environment say."""
    source = options.model_tag or options.model or "stand-in"
    config = Path(source) / "config.json"
    described = json.loads(config.read_text()) if config.is_file() else {}
    length = options.max_model_len or -1
    key = os.environ.get("VLLM_API_KEY", "")
    return Settings(
        models=options.served_model_name or [source],
        root=source,
        keys=options.api_key or ([key] if key else []),
        max_model_len=length if length > 0 else described.get("max_position_embeddings", 2048),
        max_num_seqs=options.max_num_seqs or 256,
        max_queued=options.max_num_queued_reqs,
        shutdown_seconds=options.shutdown_timeout or 0,
        gpu_memory_utilization=options.gpu_memory_utilization or 0.92,
        kv_tokens=int(os.environ.get("STAND_IN_KV_TOKENS") or _KV_TOKENS),
        token_seconds=float(os.environ.get("STAND_IN_TOKEN_SECONDS") or 0),
        version=VERSION,
        adapters=adapters_of(options.lora_modules or []),
        takes_adapters=bool(options.enable_lora)
        and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") in ("1", "True"),
        task=task_of(described, options.runner, options.convert),
    )


def adapters_of(modules: Sequence[str]) -> dict[str, str]:
    """The paths of adapters by their names; each stands as JSON or as name=path."""
    found = {}
    for module in modules:
        name, _, path = module.partition("=")
        entry = json.loads(module) if module.startswith("{") else {"name": name, "path": path}
        found[entry["name"]] = entry["path"]
    return found


def serve(options: argparse.Namespace) -> int:
    """Load for as long as it is told to, then answer until SIGTERM; returns the exit status."""
    log(f"vLLM API server version {VERSION}")
    time.sleep(float(os.environ.get("STAND_IN_START_SECONDS") or 0))
    if os.environ.get("STAND_IN_START_FAULT") == "oom":
        # In vLLM's order: the cause first, then the API server's own story, which never names it.
        log(f"EngineCore failed to start.\nTraceback (most recent call last):\n{OOM}", level="ERROR")
        log("Traceback (most recent call last):", level="ERROR")
        log("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", "ERROR")
        return 1
    if options.headless:
        follow(options)
        return 0
    nodes = meet(options)
    engine = Engine(settings(options), (options.host or "", options.port or 8000), nodes)
    engine.fault = os.environ.get("STAND_IN_FAULT", "")
    nodes.watch(engine.die)
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    signal.signal(signal.SIGINT, lambda *_: engine.stop())
    log(f"Starting vLLM server on {engine.url}")
    log("Application startup complete.")
    engine.serve_forever(poll_interval=0.05)
    engine.ended.wait()  # what was in flight has its last event
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="vllm")
    parser.add_argument("-v", "--version", action="version", version=VERSION)
    add_options(parser.add_subparsers(dest="subparser", required=True).add_parser("serve"))
    return serve(parser.parse_args(sys.argv[1:] if words is None else words))


if __name__ == "__main__":
    sys.exit(main())
