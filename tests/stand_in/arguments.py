"""The command line of ``vllm serve``, from the table of options that the collection has of a release."""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

_HERE = Path(__file__).resolve().parent
_OPTIONS = (_HERE / "options.py", _HERE.parents[1] / "plugins/module_utils/_releases/options.py")

RELEASE = "0.33"
VERSION = f"{RELEASE}.0+standin"

_NUMBERS = {
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-queued-reqs",
}  # vLLM reads 32k as well: value in the table


def number(text: str) -> int:
    """A whole number as vLLM reads it: 4096, 4k (thousands) and 4K (times 1024); -1 for ``auto``."""
    if text == "auto":
        return -1
    factor = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}.get(text[-1:], 1)
    return int(float(text[:-1]) * factor) if factor > 1 else int(text)


def table(release: str = RELEASE) -> Iterator[tuple[list[str], str, list[str]]]:
    """Names, what it takes and choices of every option; a later release replaces what an earlier one says."""
    tables: dict[str, str] = runpy.run_path(str(next(path for path in _OPTIONS if path.is_file())))["TABLES"]
    options: dict[str, tuple[list[str], str, list[str]]] = {}
    for version, text in tables.items():
        for line in text.replace("\n    ", "").strip().splitlines():
            names, takes, *choices = line.split()
            name = names.split(",")[0]
            options[name] = (names.split(","), takes, choices[0].split(",") if choices else [])
            if takes == "-":
                del options[name]
        if version == release:
            break
    yield from options.values()


class Parser(argparse.ArgumentParser):
    """As vLLM's: a file's options come before the command line's, ``_`` is ``-``, ``--a.b 1`` is a part of JSON."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Expand, then parse."""
        return super().parse_known_args(expanded(list(args or [])), namespace)

    def error(self, message: str) -> NoReturn:
        """Without the usage, which would be 300 lines."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options of ``vllm serve``."""
    parser.add_argument("model_tag", nargs="?")
    for names, takes, choices in table():
        flags = [f"--{name}" if len(name) > 1 else f"-{name}" for name in names]
        flags += [f"-{name}" for name in names[1:] if len(name) > 1]
        options: dict[str, Any] = {"choices": choices} if choices else {}
        if takes == "flag":
            options = {"action": "store_true"}
        elif takes == "switch":
            options = {"action": argparse.BooleanOptionalAction}
        elif takes == "values":
            options["nargs"] = "+"
        elif takes in ("int", "float") or names[0] in _NUMBERS:
            options["type"] = {"int": int, "float": float}.get(takes, number)
        if takes == "switch":
            flags = [flag for flag in flags if flag.startswith("--")]
        parser.add_argument(*flags, **options)


def expanded(words: Sequence[str]) -> list[str]:
    """The words with the options of a ``--config`` file before them, and every key spelled with dashes."""
    words = [_spelled(word) for word in words]
    if "--config" not in words:
        return _joined(words)
    place = words.index("--config")
    path = Path(words[place + 1])
    rest = words[:place] + words[place + 2 :]
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"Config file must be of a yaml/yml type.              {path} was given")
    import yaml

    command = rest[:1] if rest and not rest[0].startswith("-") else []  # "serve", where this parser sees it
    rest = rest[len(command) :]
    found: list[str] = []
    for key, value in (yaml.safe_load(path.read_text()) or {}).items():
        flag = f"--{str(key).replace('_', '-')}"
        if key == "model":
            command += [] if rest and not rest[0].startswith("-") else [str(value)]
        elif isinstance(value, bool):
            found += [flag] if value else _negated(flag)
        elif isinstance(value, list):
            found += [flag, *map(str, value)]
        else:
            found += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return _joined([*command, *found, *rest])


def _negated(flag: str) -> list[str]:
    """A false: said where there is a way to say it, else passed over."""
    switches = {name for names, takes, _ in table() if takes == "switch" for name in names}
    return [f"--no-{flag[2:]}"] if flag[2:] in switches else []


def _spelled(word: str) -> str:
    """``--max_model_len=5`` as ``--max-model-len=5``."""
    if not word.startswith("--"):
        return word
    key, equals, value = word.partition("=")
    return key.replace("_", "-") + equals + value


def _joined(words: Sequence[str]) -> list[str]:
    """``--a.b 1 --a.c x`` as ``--a {"b": 1, "c": "x"}``."""
    rest: list[str] = []
    nested: dict[str, dict[str, Any]] = {}
    todo = iter(words)
    for word in todo:
        key, equals, value = word.partition("=")
        if key.startswith("--") and "." in key:
            outer, *inner = key.split(".")
            place = nested.setdefault(outer, {})
            for name in inner[:-1]:
                place = place.setdefault(name, {})
            text = value if equals else next(todo, "true")
            try:
                place[inner[-1]] = json.loads(text)
            except ValueError:
                place[inner[-1]] = text
        else:
            rest.append(word)
    return rest + [word for key, value in nested.items() for word in (key, json.dumps(value))]
