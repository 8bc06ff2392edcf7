"""The directories that an engine needs, and what systemd is told of them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.directories import (
    drop_in,
    is_below,
    mount_units,
    unusable,
    written,
)


def test_options_and_environment_name_directories_to_write_to() -> None:
    variables = {
        "HF_HOME": "/srv/hf/",
        "TMPDIR": "/srv//scratch/./x",
        "TRITON_CACHE_DIR": "~/triton",  # below the home
        "XDG_CACHE_HOME": "cache",
        "CUDA_HOME": "/usr/local/cuda",  # read only
        "VLLM_LOGGING_CONFIG_PATH": "/etc/vllm/logging.json",
        "OMP_NUM_THREADS": 1,
    }

    found = written({"download-dir": "/srv/models", "model": "/srv/models/tiny", "port": 8000}, variables)

    assert found == {"HF_HOME": "/srv/hf", "TMPDIR": "/srv/scratch/x", "download-dir": "/srv/models"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/home/ops/hf", "an engine sees home directories read-only"),
        ("/root", "an engine sees home directories read-only"),
        ("/tmp/x", "an engine has a /tmp of its own, which goes with it when it stops"),
        ("/var/tmp", "an engine has a /tmp of its own, which goes with it when it stops"),
        ("/proc/1", "what lies there is gone after a boot"),
        ("/run/vllm", "what lies there is gone after a boot"),
        ("/var/run/vllm", "what lies there is gone after a boot"),
        ("/dev/shm", "what lies there is gone after a boot"),
        ("/srv/a b", "systemd takes no path with other characters than letters, digits and . _ - @ + , ="),
        ("/srv/%h", "systemd takes no path"),
        ("/srv/ä", "systemd takes no path"),
        ("/srv/a\nb", "systemd takes no path"),
        ("/", "the system lives there, and what it needs must not become an engine's"),
        ("/etc", "the system lives there"),
        ("/etc/vllm", "the system lives there"),
        ("/usr/lib/vllm", "the system lives there"),
        ("/usr", "the system lives there"),
        ("/opt", "the system lives there"),
        ("/var/lib", "the system lives there"),
    ],
)
def test_some_cannot_be_written_to(path: str, reason: str) -> None:
    assert unusable(path).startswith(reason)
    assert unusable(path).endswith("Name another directory, such as /srv/vllm, or leave it out")


@pytest.mark.parametrize(
    "path",
    [
        "/srv/hf",
        "/home2/hf",
        "/rooted",
        "/mnt/nvme0/a-b_c.d@1+2,3=4",
        "/opt/hf",
        "/var/lib/hf",
        "/usr/local/hf",
        "/mnt",
    ],
)
def test_others_can(path: str) -> None:
    assert unusable(path) == ""


def test_a_way_around_is_seen_through() -> None:
    assert written({}, {"HF_HOME": "/srv/../home/ops"}) == {"HF_HOME": "/home/ops"}
    assert written({}, {"HF_HOME": "//home/ops"}) == {"HF_HOME": "/home/ops"}
    assert is_below("/srv/hf", "/srv/hf/")
    assert not is_below("/srv/hf2", "/srv/hf")
    assert is_below("/srv", "/")


def test_mounts_have_the_names_that_systemd_gives_them() -> None:
    """As `systemd-escape --path` printed them."""
    assert mount_units(["/srv/models/tiny-1", "/srv/models"]) == [
        "srv.mount",
        "srv-models.mount",
        r"srv-models-tiny\x2d1.mount",
    ]
    assert mount_units(["/mnt/a b/.c"])[-1] == r"mnt-a\x20b-.c.mount"
    assert mount_units(["/data/é"])[-1] == r"data-\xc3\xa9.mount"
    assert mount_units(["/.hidden"]) == [r"\x2ehidden.mount"]
    assert mount_units(["/"]) == []


def test_what_systemd_is_told() -> None:
    text = drop_in(["/opt/vllm/current", "/srv/m", "/srv/hf", "/srv/m"], ["/srv/hf"], "# Managed\n")

    lines = text.splitlines()
    mounts = "opt.mount opt-vllm.mount opt-vllm-current.mount srv.mount srv-hf.mount srv-m.mount"
    assert lines[0] == "# Managed"
    told = {f"Wants={mounts}", f"After={mounts}", "After=multi-user.target", "TimeoutStartSec=infinity"}
    assert {*told, "ReadWritePaths=-/srv/hf"} <= set(lines)
    assert "RequiresMountsFor=" not in re.sub("#.*", "", text)
    (start,) = (line for line in lines if line.startswith("ExecStartPre="))
    assert start.endswith(" wait /opt/vllm/current /srv/m /srv/hf")


def test_the_shell_waits_for_every_place(tmp_path: Path) -> None:
    there, late = tmp_path / "there", tmp_path / "late $HOME 50%"
    there.mkdir()
    (start,) = re.findall("^ExecStartPre=(.*)", drop_in([str(there), str(late)], [], ""), re.MULTILINE)
    # What systemd makes of it: words, then variables and specifiers.
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(start)]

    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.3)
        late.mkdir()
        said, _ = waiting.communicate(timeout=10)

    assert waiting.returncode == 0
    assert said == f"Waits for {late}, which is not there, or closed to this user.\n"
