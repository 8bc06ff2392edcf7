"""Docker's ``daemon.json``, a file that several programs and people share: what others wrote stays.

The pure part of the module ``daemon_json``: decode, parse, merge, print. Nothing here knows of Ansible or of files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._errors import ConfigFileError
from .merge import merged

__all__ = ["decode", "merge", "parse", "render"]

_DEFAULT_LOG_DRIVER = "json-file"  # what the engine uses when the file names none


def decode(content: bytes, path: str) -> str:
    """The text of a ``daemon.json``; raises ConfigFileError naming ``path`` when it is none."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigFileError(
            f"{path}: not UTF-8 text (byte {error.start}: {error.reason}). Nothing was changed. "
            "Move the file out of the way."
        ) from error


def parse(text: str, path: str) -> dict[str, Any]:
    """The settings in the text of a ``daemon.json``, taken as the engine itself takes it.

    A text of white space has none, nor has ``null``; a byte order mark in front is passed over.

    Raises ConfigFileError naming ``path`` and the line when it is no JSON object.
    """
    text = text.removeprefix("\ufeff")
    if not text.strip():
        return {}
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise ConfigFileError(
            f"{where}: not JSON ({error.msg}). Nothing was changed. Mend that line, or move the file out of the way."
        ) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigFileError(
            f"{path}, line 1: not a JSON object but a {type(settings).__name__}. Nothing was changed. "
            "Put the settings in braces, or move the file out of the way."
        )
    return settings


def merge(current: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``current`` with ``settings`` on top: objects are merged key by key, all else is replaced, the order kept.

    The options of a log driver mean nothing to another one, which would refuse to start containers with them: where
    the driver changes, its options are replaced as a whole.
    """
    kept = dict(current)
    driver = kept.get("log-driver", _DEFAULT_LOG_DRIVER)
    if settings.get("log-driver", driver) != driver:
        kept.pop("log-opts", None)
    return merged(kept, settings)


def render(settings: Mapping[str, Any]) -> str:
    """The text of the file, indented as ``nvidia-ctk runtime configure`` does it."""
    return json.dumps(settings, indent=4, ensure_ascii=False) + "\n"
