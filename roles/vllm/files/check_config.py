"""Ask vLLM's own argument parser whether ``vllm serve --config FILE`` would accept a file; exit status 0 if so.

Usage, with the Python of the virtual environment that is to serve: ``python check_config.py FILE``
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


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
    serve.validate(parser.parse_args(["serve", "--config", str(named)]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        try:
            check(Path(sys.argv[1]), Path(directory))
        except (TypeError, ValueError) as error:
            sys.exit(f"vllm serve: error: {error}")
