"""The module engine_config, from its arguments to the files and to what it says there is to do."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import places
from ansible_collections.gpuhosts.vllm.plugins.modules import engine_config

from tests.unit.plugins.conftest import RunModule

Configure = Callable[..., dict[str, Any]]

TINY: dict[str, Any] = {
    "id": "tiny-1",
    "model": "tiny",
    "endpoint": {"address": "192.0.2.1", "port": 8000},
    "node": {"rank": 0, "gpus": [{"index": 0, "uuid": "GPU-0"}]},
    "engine_args": {"port": 8000},
    "env": {"A": "1"},
}
REFUSES_PLENTY = """#!/bin/sh
if grep -q plenty "$1"; then echo "vllm serve: error: $1: plenty is invalid" >&2; exit 2; fi
"""
SYSTEMCTL = """#!/bin/sh
shift 2
for unit in "$@"; do
    state=inactive; enabled=disabled
    if [ -e "$RUNNING/$unit" ]; then state=active; enabled=enabled; fi
    printf 'Id=%s\\nActiveState=%s\\nUnitFileState=%s\\n\\n' "$unit" "$state" "$enabled"
done
"""


@pytest.fixture
def configure(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Run the module on a host below tmp_path, where units run that have a file in running/."""
    for name in ("remote", "running", "run", "bin"):
        (tmp_path / name).mkdir()
    programs = {"systemctl": SYSTEMCTL, "systemd-analyze": "#!/bin/sh\n", "check": REFUSES_PLENTY}
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RUNNING", str(tmp_path / "running"))
    monkeypatch.setattr(engine_config, "ROOT", tmp_path)
    # Only root gives files away.
    monkeypatch.setattr(places.Place, "is_owned", lambda self: self.path.stat().st_mode & 0o777 == self.mode)
    monkeypatch.setattr(places.os, "chown", lambda *_: None)

    def run(*instances: dict[str, Any], **more: Any) -> dict[str, Any]:
        usual = {
            "instances": list(instances),
            "directory": str(tmp_path / "instances"),
            "secrets": {"VLLM_API_KEY": "hidden"},
            "secrets_file": str(tmp_path / "secrets.env"),
            "runtime_directory": str(tmp_path / "run"),
            "fact_file": str(tmp_path / "facts.d/gpuhosts_vllm.fact"),
            "user": "root",
            "group": "root",
            "home": str(tmp_path / "home/vllm"),
            "unit_file": str(tmp_path / "vllm@.service"),
            "unit": "[Service]\n",
            "link": str(tmp_path / "current"),
            "release": str(tmp_path / "versions/1"),
            "check": [str(tmp_path / "bin" / "check")],
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path / "remote"),
        }
        return run_module(engine_config, **(usual | more))

    return run


def start(host: Path, name: str) -> None:
    """What systemd leaves at a start."""
    (host / "running" / f"vllm@{name}.service").touch()
    mark = host / "run" / name / "started"
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    os.utime(mark, (time.time() + 5,) * 2)  # later than what was written in this test so far


def age(host: Path) -> None:
    """Let an hour go by."""
    for path in [*host.rglob("*"), host / "current"]:
        then = path.lstat().st_mtime - 3600
        os.utime(path, (then, then), follow_symlinks=False)


def snapshot(host: Path) -> dict[Path, str]:
    places = [*(host / "instances").iterdir(), host / "secrets.env", host / "vllm@.service"]
    return {path: path.read_text() for path in places if path.exists()}


def test_a_new_instance_is_written_and_has_to_start(configure: Configure, tmp_path: Path) -> None:
    result = configure(TINY, environment={"A": "0", "B": "2"})

    assert result["changed"]
    assert (result["start"], result["restart"], result["remove"], result["disturbed"]) == (["tiny-1"], [], [], [])
    assert (tmp_path / "instances/tiny-1.yaml").read_text() == "port: 8000\n"
    assert (tmp_path / "instances/tiny-1.env").read_text() == 'A="1"\nB="2"\n'
    keeper = json.loads((tmp_path / "instances/tiny-1.json").read_text())
    assert keeper["command"][:2] == [str(tmp_path / "current/bin/vllm"), "serve"]
    assert (tmp_path / "secrets.env").read_text() == 'VLLM_API_KEY="hidden"\n'
    assert (tmp_path / "secrets.env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "current").readlink() == tmp_path / "versions/1"
    assert json.loads((tmp_path / "facts.d/gpuhosts_vllm.fact").read_text())["instances"] == [
        {
            "id": "tiny-1",
            "model": "tiny",
            "port": 8000,
            "rank": 0,
            "gpus": [{"index": 0, "uuid": "GPU-0"}],
            "tensor": None,
            "master_port": None,
            "context_length": None,
        }
    ]
    assert "hidden" not in str(result)

    start(tmp_path, "tiny-1")
    again = configure(TINY, environment={"A": "0", "B": "2"})
    assert not again["changed"]
    assert (again["files"], again["start"], again["restart"]) == ([], [], [])


def test_what_is_not_met_is_refused_before_anything_is_looked_at(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "bin/systemctl").unlink()
    failed = configure({"id": "a"}, unmet=["a has no image.", "a has no key."], only_prepared=True)
    assert (failed["failed"], failed["msg"]) == (True, "a has no image. a has no key.")


def test_check_mode_tells_who_would_restart_and_touches_nothing(configure: Configure, tmp_path: Path) -> None:
    configure(TINY, TINY | {"id": "tiny-2"})
    start(tmp_path, "tiny-1")
    start(tmp_path, "tiny-2")
    before = snapshot(tmp_path)

    changed = TINY | {"engine_args": {"port": 8001}}
    result = configure(changed, TINY | {"id": "tiny-2"}, _ansible_check_mode=True)

    assert result["files"] == [str(tmp_path / "instances/tiny-1.yaml")]
    assert (result["restart"], result["disturbed"]) == (["tiny-1"], ["tiny-1"])
    assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [("port: 8000\n", "port: 8001\n")]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"release": "/opt/vllm/versions/2"},
        {"secrets": {"VLLM_API_KEY": "another"}},
        {"unit": "[Service]\nNice=1\n"},
        {"programs": {"PLACE/lib/keeper.py": "new"}},
        {"times": {"hang": 60}},
    ],
    ids=["another release", "another secret", "another unit", "another keeper", "other times"],
)
def test_what_all_share_restarts_all(configure: Configure, tmp_path: Path, change: dict[str, Any]) -> None:
    others = (TINY, TINY | {"id": "tiny-2"})
    configure(*others)
    start(tmp_path, "tiny-1")
    start(tmp_path, "tiny-2")
    if "programs" in change:
        change = {"programs": {str(tmp_path / "lib/keeper.py"): "new"}}

    assert configure(*others, _ansible_check_mode=True, **change)["restart"] == ["tiny-1", "tiny-2"]
    assert configure(*others, **change)["restart"] == ["tiny-1", "tiny-2"]


def test_a_restart_that_an_interrupted_run_owes_is_not_forgotten(configure: Configure, tmp_path: Path) -> None:
    configure(TINY)
    start(tmp_path, "tiny-1")
    age(tmp_path)
    changed = TINY | {"engine_args": {"port": 8001}}
    assert configure(changed)["changed"]

    (tmp_path / "run/tiny-1/keeper.prom").touch()  # what the engine that runs goes on to write is no start
    again = configure(changed)

    assert (again["changed"], again["restart"]) == (False, ["tiny-1"])
    start(tmp_path, "tiny-1")
    assert configure(changed)["restart"] == []


@pytest.mark.parametrize("check", [True, False])
def test_what_vllm_refuses_changes_nothing(configure: Configure, tmp_path: Path, check: bool) -> None:
    configure(TINY)
    before = snapshot(tmp_path)

    refused = TINY | {"id": "tiny-2", "engine_args": {"max-model-len": "plenty"}}
    result = configure(TINY | {"env": {"A": "2"}}, refused, _ansible_check_mode=check)

    path = tmp_path / "instances/tiny-2.yaml"
    assert result["failed"]
    assert result["msg"] == (
        f"tiny-2: vLLM does not accept its options. Nothing was changed. vllm serve: error: {path}: plenty is invalid"
    )
    assert snapshot(tmp_path) == before


def test_what_is_not_wanted_any_more_keeps_its_files_until_it_is_stopped(configure: Configure, tmp_path: Path) -> None:
    configure(TINY)
    start(tmp_path, "tiny-1")

    running = configure()
    assert (running["remove"], running["disturbed"]) == (["tiny-1"], ["tiny-1"])
    assert running["files"] == [str(tmp_path / "facts.d/gpuhosts_vllm.fact")]
    (tmp_path / "running/vllm@tiny-1.service").unlink()
    stopped = configure()

    assert (stopped["remove"], stopped["disturbed"]) == (["tiny-1"], [])
    assert list((tmp_path / "instances").iterdir()) == []
    assert not configure()["remove"]


def test_another_mode_is_mended_without_a_restart(configure: Configure, tmp_path: Path) -> None:
    configure(TINY)
    start(tmp_path, "tiny-1")
    (tmp_path / "secrets.env").chmod(0o644)

    result = configure(TINY)

    assert (result["changed"], result["restart"]) == (True, [])
    assert (tmp_path / "secrets.env").stat().st_mode & 0o777 == 0o600


def test_it_makes_the_directories_that_others_may_pass_through(configure: Configure, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        configure(TINY)
    finally:
        os.umask(umask)

    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("instances", "facts.d", "home", "home/vllm")}
    assert modes == {"instances": 0o755, "facts.d": 0o755, "home": 0o755, "home/vllm": 0o750}
    (tmp_path / "home/vllm").chmod(0o777)
    assert configure(TINY, _ansible_check_mode=True)["files"] == [str(tmp_path / "home/vllm")]
    assert configure(TINY)["files"] == [str(tmp_path / "home/vllm")]
    assert not configure(TINY)["changed"]


def test_where_the_instances_lie_is_told_without_a_restart(configure: Configure, tmp_path: Path) -> None:
    configure(TINY)
    start(tmp_path, "tiny-1")
    moved = TINY | {"node": {"rank": 0, "gpus": [{"index": 1, "uuid": "GPU-1"}]}}

    result = configure(moved)

    assert result["files"] == [str(tmp_path / "facts.d/gpuhosts_vllm.fact")]
    assert (result["differs"], result["restart"]) == (True, [])


def test_needrestart_is_told_where_it_is(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "needrestart/vllm.conf"
    configure(TINY, needrestart_file=str(file))
    assert not file.parent.exists()
    file.parent.mkdir()
    start(tmp_path, "tiny-1")

    result = configure(TINY, needrestart_file=str(file))

    assert (result["files"], result["restart"]) == ([str(file)], [])
    ask = f'our %nrconf; do "{file}"; print grep {{ "vllm\\@tiny-1.service" =~ $_ }} keys %{{$nrconf{{override_rc}}}};'
    assert subprocess.run(["perl", "-e", ask], check=True, capture_output=True).stdout  # as needrestart reads it


@pytest.mark.parametrize("lacking", ["", "release", "user", "group", "home", "shell"])
def test_it_tells_whether_release_and_account_are_there(configure: Configure, tmp_path: Path, lacking: str) -> None:
    root = pwd.getpwnam("root")
    account = {"user": "root", "group": "root", "home": root.pw_dir, "shell": root.pw_shell}
    if lacking != "release":
        (tmp_path / "versions/1").mkdir(parents=True)
        (tmp_path / "versions/1/.complete").touch()
    given = account | ({lacking: "another"} if lacking in account else {}) | {"only_prepared": True}

    result = configure(TINY, _ansible_check_mode=True, **given)

    assert result["prepared"] == (not lacking)
    assert (result["differs"], result["start"]) == ((False, []) if lacking else (True, ["tiny-1"]))
    assert not (tmp_path / "instances").exists()


def test_a_port_that_nobody_may_reach_any_more_is_work_but_no_restart(configure: Configure, tmp_path: Path) -> None:
    for path, text in {
        "etc/ufw/ufw.conf": "ENABLED=yes\n",
        "etc/ufw/user.rules": "### tuple ### allow tcp 8001 0.0.0.0/0 any 10.0.0.2 in comment=677075\n",
        "bin/ufw": '#!/bin/sh\necho "$*" >> "$RUNNING/../said"\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "bin/ufw").chmod(0o755)
    configure()
    access = {"name": "gpu", "listens_on": [], "allow_from": ["10.0.0.2"]}

    checked = configure(access=access, _ansible_check_mode=True)

    assert checked["access"] == ["ufw: no longer open: TCP port 8001 for 10.0.0.2"]
    assert (checked["changed"], checked["differs"], checked["restart"]) == (True, True, [])
    assert not (tmp_path / "said").exists()
    assert configure(access=access)["access"] == checked["access"]
    assert (tmp_path / "said").read_text() == "delete allow proto tcp from 10.0.0.2 to any port 8001\n"


def test_what_selinux_takes_has_to_be_installed(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1")
    access = {"name": "gpu", "listens_on": [], "allow_from": [], "file_contexts": {"/srv/bin(/.*)?": "bin_t"}}

    message = configure(access=access)["msg"]

    assert message.startswith("SELinux: /srv/bin(/.*)? is bin_t: that takes policycoreutils-python-utils. Install it")


def spanning(address: str) -> dict[str, Any]:
    """A node of an instance that has another."""
    node = {"rank": 1, "address": address, "gpus": [{"index": 0, "uuid": "GPU-0"}]}
    return TINY | {"node": node, "peers": ["10.0.0.12"], "peer_ports": [29500, 29599], "rendezvous_port": 29501}


def test_a_node_is_told_its_interface_unless_the_inventory_does(configure: Configure, tmp_path: Path) -> None:
    configure(spanning("127.0.0.1") | {"env": {"NCCL_SOCKET_IFNAME": "ib0"}})
    variables = (tmp_path / "instances/tiny-1.env").read_text().splitlines()
    assert {'GLOO_SOCKET_IFNAME="lo"', 'TP_SOCKET_IFNAME="lo"', 'NCCL_SOCKET_IFNAME="ib0"'} <= set(variables)
    fact = json.loads((tmp_path / "facts.d/gpuhosts_vllm.fact").read_text())
    assert fact["instances"][0]["master_port"] == 29501


def test_a_node_whose_address_the_host_has_not_stops_before_anything_is_written(
    configure: Configure, tmp_path: Path
) -> None:
    assert "Set fleet_cluster_address" in configure(spanning("192.0.2.77"))["msg"]
    assert not (tmp_path / "instances").exists()


def test_the_ports_between_nodes_are_opened_to_these(configure: Configure, tmp_path: Path) -> None:
    ufw = tmp_path / "etc/ufw"
    ufw.mkdir(parents=True)
    (ufw / "ufw.conf").write_text("ENABLED=yes\n")
    access = {"name": "gpu", "listens_on": [], "allow_from": ["10.0.0.2"]}
    opened = configure(spanning("127.0.0.1"), access=access, _ansible_check_mode=True)["access"]
    assert opened[0] == "ufw: TCP ports 29500-29599 for 10.0.0.12 is open"
    assert all("10.0.0.12" in sentence for sentence in opened)


def test_adapters_come_and_go_without_a_restart(configure: Configure, tmp_path: Path) -> None:
    sql, py = ({"name": name, "source": f"/srv/{name}"} for name in ("sql", "py"))
    able, written = TINY | {"engine_args": {"enable-lora": True}}, tmp_path / "instances/tiny-1.arguments.json"
    configure(able | {"adapters": [sql]})
    start(tmp_path, "tiny-1")
    for adapters in ([sql, py], []):
        result = configure(able | {"adapters": adapters})
        assert (result["restart"], result["files"]) == ([], [str(written)])
        assert [json.loads(word)["name"] for word in json.loads(written.read_text())[1:]] == ["sql", "py"][
            : len(adapters)
        ]
    assert (configure(TINY)["restart"], written.exists()) == (["tiny-1"], False)  # it takes none any more
