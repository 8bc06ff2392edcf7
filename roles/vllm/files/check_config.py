"""Ask vLLM's own argument parser whether ``vllm serve --config FILE`` would accept a file; exit status 0 if so.

Usage, with the Python of the virtual environment that is to serve: ``python check_config.py FILE``
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

TRACING = (  # what vLLM imports for it, all or none (vllm/tracing/otel.py)
    "opentelemetry.sdk.trace.export",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


def check(config: Path, scratch: Path) -> None:
    """Parse the file as the ``serve`` command would; raises what that command would."""
    # The import leaves caches and settings below these.
    os.environ |= dict.fromkeys(["HOME", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"], str(scratch))
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    named = scratch / "config.yaml"  # the parser goes by the suffix, which Ansible's staged file does not have
    named.symlink_to(config.resolve())
    parser = FlexibleArgumentParser(prog="vllm")
    serve = ServeSubcommand()
    serve.subparser_init(parser.add_subparsers(dest="subparser"))
    arguments = parser.parse_args(["serve", "--config", str(named)])
    serve.validate(arguments)
    if arguments.otlp_traces_endpoint:  # the engine would end at its start
        try:
            for name in TRACING:
                importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"otlp-traces-endpoint: this vLLM cannot trace: {error}. Leave out tracing.") from error
    if arguments.distributed_executor_backend == "ray" and not importlib.util.find_spec("ray"):
        raise ValueError(
            "distributed-executor-backend ray: there is no Ray beside this vLLM. Set executor of the model to mp, or "
            "name an image in vllm_image that has Ray as well."
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        try:
            check(Path(sys.argv[1]), Path(directory))
        except (TypeError, ValueError) as error:
            sys.exit(f"vllm serve: error: {error}")
