"""The directories that an engine needs besides the home of its user; private to the collection.

An engine's sandbox shows it the file system read-only. What its environment tells it to write elsewhere is opened for
it, by a file that systemd reads beside the unit. Which variables name such directories is known here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["drop_in", "is_below", "is_of_the_system", "mount_units", "unusable", "written"]

# Read by vLLM 0.33 (envs.py) and by what it runs on: huggingface_hub, transformers, PyTorch, Triton, FlashInfer, CUDA,
# Python. Those that vLLM only reads from, such as VLLM_LOGGING_CONFIG_PATH and CUDA_HOME, are none of them.
VARIABLES = frozenset(
    (
        "HOME",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_XET_CACHE",
        "HF_ASSETS_CACHE",
        "HF_MODULES_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "TRANSFORMERS_CACHE",
        "MODELSCOPE_CACHE",
        "VLLM_CACHE_ROOT",
        "VLLM_CONFIG_ROOT",
        "VLLM_ASSETS_CACHE",
        "VLLM_MEDIA_CACHE",
        "VLLM_XLA_CACHE_PATH",
        "VLLM_RPC_BASE_PATH",
        "VLLM_DEBUG_DUMP_PATH",
        "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR",
        "VLLM_TORCH_PROFILER_DIR",
        "TORCH_HOME",
        "TORCH_EXTENSIONS_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "TORCH_COMPILE_DEBUG_DIR",
        "TRITON_HOME",
        "TRITON_CACHE_DIR",
        "TRITON_DUMP_DIR",
        "CUDA_CACHE_PATH",
        "FLASHINFER_WORKSPACE_BASE",
        "DG_JIT_CACHE_DIR",
        "TILELANG_CACHE_DIR",
        "TVM_FFI_CACHE_DIR",
        "CUTE_DSL_CACHE_DIR",
        "NUMBA_CACHE_DIR",
        "OUTLINES_CACHE_DIR",
        "MPLCONFIGDIR",
        "PROMETHEUS_MULTIPROC_DIR",
        "RAY_TMPDIR",
    )
)
OPTIONS = ("download-dir",)
_HOMES = "an engine sees home directories read-only"
_OWN_TMP = "an engine has a /tmp of its own, which goes with it when it stops"
_NO_DISK = "what lies there is gone after a boot"
_SYSTEMS = "the system lives there, and what it needs must not become an engine's"
_CLOSED = {
    "home": _HOMES,
    "root": _HOMES,
    "tmp": _OWN_TMP,
    "var/tmp": _OWN_TMP,
    "dev": _NO_DISK,
    "proc": _NO_DISK,
    "run": _NO_DISK,
    "sys": _NO_DISK,
    "var/run": _NO_DISK,
    **dict.fromkeys(("bin", "boot", "etc", "lib", "lib64", "sbin"), _SYSTEMS),
    **dict.fromkeys(("usr/bin", "usr/lib", "usr/lib64", "usr/libexec", "usr/sbin", "usr/share"), _SYSTEMS),
}
# Closed themselves, but not what lies below them (https://refspecs.linuxfoundation.org/FHS_3.0/fhs/index.html).
_SHARED = frozenset(
    ("/", "/opt", "/usr", "/usr/local", "/var", "/var/cache", "/var/lib", "/var/log", "/var/opt", "/var/spool")
)
# Others mean something to systemd, or separate one path from the next.
_PLAIN = re.compile(r"/[\w./@+,=-]+", re.ASCII)

# The first words are the shell's, what follows them the paths.
_WAIT = (
    "/bin/sh -c '"
    'for place; do test -e "$$place" || echo "Waits for $$place, which is not there, or closed to this user."; '
    'until test -e "$$place"; do sleep 1; done; done'
    "' wait"
)


def written(engine_args: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, str]:
    """The directories that options and environment tell an engine to write to, by what names them.

    A path that does not begin with a slash is one below the home of the engine's user, where it may write anyway.
    """
    named = {name: variables[name] for name in VARIABLES.intersection(variables)}
    named.update({name: engine_args[name] for name in OPTIONS if name in engine_args})
    return {name: _normal(named[name]) for name in sorted(named) if str(named[name]).startswith("/")}


def unusable(path: str) -> str:
    """Why no engine can write to such a directory, and what to do; "" if it can."""
    reasons = [reason for place, reason in _CLOSED.items() if is_below(path, f"/{place}")]
    if path in _SHARED:
        reasons = [_SYSTEMS]
    elif not _PLAIN.fullmatch(path):
        reasons = ["systemd takes no path with other characters than letters, digits and . _ - @ + , ="]
    return f"{reasons[0]}. Name another directory, such as /srv/vllm, or leave it out" if reasons else ""


def is_below(path: str, place: str) -> bool:
    """Whether a path is a place, or in it."""
    return f"{path}/".startswith(f"{place.rstrip('/')}/")


def is_of_the_system(path: str) -> bool:
    """Whether a directory belongs to the system itself, so that a container must not get the host's."""
    return path in _SHARED or path.lstrip("/") in _CLOSED


def mount_units(paths: Iterable[str]) -> list[str]:
    """The names that systemd has for whatever may be mounted on the way to these paths, or at them."""
    on_the_way: set[str] = set()
    for path in paths:
        parts = [part for part in path.split("/") if part]
        on_the_way.update("/".join(parts[:length]) for length in range(1, len(parts) + 1))
    return [f"{_escaped(place)}.mount" for place in sorted(on_the_way)]


def drop_in(needed: Iterable[str], opened: Iterable[str], header: str, *, contained: bool = False) -> str:
    """What systemd reads beside the unit of an instance.

    :param needed: paths without which the engine must not be started.
    :param opened: those of them that it may write to, besides its user's home.
    :param contained: Docker runs it, and its main process is a client of Docker.
    """
    places = list(dict.fromkeys(needed))
    mounts = " ".join(mount_units(places))
    return (
        f"{header}[Unit]\n"
        "# What systemd mounts on the way to these places comes first. With RequiresMountsFor=, a mount that fails\n"
        "# once would be the end of the engine, though it comes later; WantsMountsFor= is new in systemd 256.\n"
        f"Wants={mounts}\nAfter={mounts}\n"
        # Else this target, and whatever comes after it, would wait for the engine.
        "After=multi-user.target\n"
        # Not Requires: the container outlives a restart of the daemon, and so does this unit.
        + ("Wants=docker.service\nAfter=docker.service\n" if contained else "")
        + "\n[Service]\n"
        + ("SupplementaryGroups=docker\n" if contained else "")
        + "# A start that waits does not fail.\n"
        "TimeoutStartSec=infinity\n"
        f"ExecStartPre={_WAIT} {' '.join(map(_word, places))}\n"
        # With "-", the wait comes first: without, a path that is not there ends the unit.
         + "".join(f"ReadWritePaths=-{path}\n" for path in sorted(set(opened)))
    )


def _normal(path: Any) -> str:
    return "/" + posixpath.normpath(str(path)).lstrip("/")


def _escaped(path: str) -> str:
    """A path without its first slash, as systemd-escape(1) writes it."""
    plain = [
        char if re.fullmatch(r"[A-Za-z0-9:_]", char) or (char == "." and number) else "-" if char == "/" else ""
        for number, char in enumerate(path)
    ]
    hexadecimal = ("".join(f"\\x{byte:02x}" for byte in char.encode()) for char in path)
    return "".join(one or other for one, other in zip(plain, hexadecimal))


def _word(text: str) -> str:
    """One word of a command in a unit."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return quoted if quoted == text and not re.search(r"[\s';]", text) else f'"{quoted}"'
