"""Where the lab keeps its things, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "gpuhosts-lab"  # of the images and the network, and the first part of the containers' names
LABEL = "gpuhosts.lab"  # on everything that the engine keeps for the lab; its value says what it was made from

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".lab"  # of this checkout: SSH keys, the API key
REPORTS = STATE / "reports/lab"  # of its inventory
# Of this machine: downloads, and what is built from them.
CACHE = Path(
    os.environ.get("GPUHOSTS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", NAME)
).expanduser()


class LabError(Exception):
    """Something that the lab cannot do by itself; the message says what a human can do."""
