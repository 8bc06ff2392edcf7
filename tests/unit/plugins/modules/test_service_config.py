"""The module service_config, from its arguments to the files and to what systemd is told."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import places
from ansible_collections.gpuhosts.vllm.plugins.modules import service_config

from tests.unit.plugins.conftest import RunModule

Configure = Callable[..., dict[str, Any]]

STATUS = """Package: web
Status: install ok installed
Architecture: amd64

Package: half
Status: install ok half-configured
Architecture: amd64
"""
# It runs when there is a file "runs", and at boot when there is one "enabled"; it does not start with a bad web.conf.
SYSTEMCTL = """#!/bin/sh
cd "$HOST"
case "$1" in
show) [ -e runs ] && echo ActiveState=active || echo ActiveState=inactive
    [ -e enabled ] && echo UnitFileState=enabled || echo UnitFileState=disabled
    [ -e outdated ] && echo NeedDaemonReload=yes || echo NeedDaemonReload=no
    echo "InactiveExitTimestampMonotonic=$(cat started || echo 0)"
    echo "StateChangeTimestampMonotonic=$(cat reloaded || echo 0)"; exit ;;
enable) touch enabled ;;
reload) clock > reloaded ;;
daemon-reload) rm -f outdated ;;
start|restart)
    touch runs; clock > started; cp started reloaded
    if grep -q bad web.conf; then rm runs; echo "$*" >> said; echo "web is bad" >&2; exit 1; fi ;;
esac
echo "$*" >> said
"""
CLOCK = f"""#!{sys.executable}
import time
print(int(time.monotonic() * 1e6))
"""
PICKY = """#!/bin/sh
if grep -q refused "$1"; then echo "in $1 is something refused" >&2; exit 1; fi
"""


class Health(BaseHTTPRequestHandler):
    """Answers as the test says."""

    text = b"ok\n"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def configure(run_module: RunModule, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Run the module on a host below tmp_path."""
    for name in ("bin", "remote", "var/lib/dpkg"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    for name, text in {"systemctl": SYSTEMCTL, "picky": PICKY, "clock": CLOCK}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOST", str(tmp_path))
    monkeypatch.setattr(service_config, "ROOT", tmp_path)
    monkeypatch.setattr(service_config, "UNITS", tmp_path / "units")
    # Only root gives files away.
    monkeypatch.setattr(places.Place, "is_owned", lambda self: self.path.stat().st_mode & 0o777 == self.mode)
    monkeypatch.setattr(places.os, "chown", lambda *_: None)

    def run(files: dict[str, str], *further: dict[str, Any], **more: Any) -> dict[str, Any]:
        takes = {"web.conf": "restart", "routes": "reload", "targets": "nothing"}
        entries = [
            {
                "path": str(tmp_path / name),
                "content": text,
                "check": ["picky", "%s"],
                "taken_up_by": takes.get(name, "restart"),
            }
            for name, text in files.items()
        ]
        usual = {
            "name": "web",
            "packages": ["web"],
            "files": [*entries, *further],
            "urls": [url],
            "answer": "ok\n",
            "timeout": 0,
        }
        host = {"_ansible_diff": True, "_ansible_remote_tmp": str(tmp_path / "remote")}
        return run_module(service_config, **(usual | host | more))

    return run


def said(host: Path) -> list[str]:
    """What systemd was told since the last time."""
    path = host / "said"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_a_fresh_service_is_written_and_started_and_then_left_alone(configure: Configure, tmp_path: Path) -> None:
    files = {"web.conf": "a\n", "routes": "b\n", "units/web.service.d/own.conf": "[Service]\n"}

    result = configure(files)

    assert (result["changed"], result["steps"]) == (True, ["enable", "start"])
    assert said(tmp_path) == ["daemon-reload", "enable web.service", "start web.service"]
    assert {name: (tmp_path / name).read_text() for name in files} == files
    again = configure(files)
    assert (again["changed"], again["files"], again["steps"], again["diff"]) == (False, [], [], [])
    assert said(tmp_path) == []


def test_services_beside_are_seen_to_once_nothing_is_missing(configure: Configure, tmp_path: Path) -> None:
    conf = tmp_path / "helper.conf"
    beside = {"name": "helper", "files": [{"path": str(conf), "content": "a\n"}], "urls": []}
    early = configure({"web.conf": "a\n"}, packages=["another"], beside=[beside])
    assert (early["changed"], early["missing"], early["beside"], conf.exists()) == (False, ["another"], [], False)
    (told,) = configure({"web.conf": "a\n"}, beside=[beside])["beside"]
    assert (told["changed"], told["files"], conf.read_text()) == (True, [str(conf)], "a\n")
    assert not configure({"web.conf": "a\n"}, beside=[beside])["changed"]
    assert "login" in configure({}, beside=[{**beside, "login": "a:b"}])["msg"]


def test_its_port_is_opened_once_it_runs(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_config, "addresses_of", lambda _: [])
    for path, text in {
        "etc/ufw/ufw.conf": "ENABLED=yes\n",
        "bin/ufw": '#!/bin/sh\necho "ufw $*" >> $HOST/said\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    access = {"name": "web", "listens_on": ["8000"], "allow_from": ["10.0.0.2"]}

    checked = configure({"web.conf": "a\n"}, access=access, _ansible_check_mode=True)
    result = configure({"web.conf": "a\n"}, access=access)

    assert checked["access"] == result["access"] == ["ufw: TCP port 8000 for 10.0.0.2 is open"]
    assert result["diff"][-1]["after"] == "ufw: TCP port 8000 for 10.0.0.2 is open\n"
    opened = "ufw allow proto tcp from 10.0.0.2 to any port 8000 comment web"
    assert said(tmp_path) == ["enable web.service", "start web.service", opened]
    assert configure({"web.conf": "a\n"}, access=access)["changed"]  # this ufw forgets at once
    assert "'lb2', which is no address" in configure({}, access=access | {"allow_from": ["lb2"]})["msg"]


def test_what_selinux_needs_comes_with_the_packages(configure: Configure, tmp_path: Path) -> None:
    for path, text in {"enforce": "1", "booleans/web_can_network": "0 0"}.items():
        (tmp_path / "sys/fs/selinux" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/selinux" / path).write_text(text)
    access = {"name": "web", "listens_on": [], "allow_from": [], "booleans": ["web_can_network"]}

    result = configure({"web.conf": "a\n"}, packages=["web", "another"], access=access)

    assert result["missing"] == ["another", "policycoreutils-python-utils"]


@pytest.mark.parametrize("missing", ["another", "half"])
def test_without_its_package_nothing_is_done(configure: Configure, tmp_path: Path, missing: str) -> None:
    result = configure({"web.conf": "a\n"}, packages=["web", missing])

    assert (result["changed"], result["missing"]) == (False, [missing])
    assert not (tmp_path / "web.conf").exists()
    assert said(tmp_path) == []


def test_packages_of_a_repository_are_told_with_what_is_to_be_done(configure: Configure) -> None:
    wanted = {"manager": "apt", "packages": {"web": "2.*"}}
    absent = configure({"web.conf": "a\n"}, packages=[], vendor={**wanted, "packages": {"another": ""}})
    assert absent["missing"] == ["another"]

    result = configure({"web.conf": "a\n"}, packages=[], vendor=wanted)

    assert result["missing"] == []
    assert result["steps"] == ["enable", "start"]  # one of another version runs on until it is replaced
    assert (result["vendor"]["wanted"], result["vendor"]["pins"]) == (["web=2.*"], {"web": "2.*"})
    assert result["vendor"]["todo"] == {"repository": False, "packages": True, "locks": True}
    assert "vendor" not in configure({"web.conf": "a\n"})


@pytest.mark.parametrize(
    ("name", "told"),
    [("web.conf", ["restart web.service"]), ("routes", ["reload web.service"]), ("targets", [])],
)
def test_every_file_is_taken_up_as_it_has_to_be(
    configure: Configure, tmp_path: Path, name: str, told: list[str]
) -> None:
    files = {"web.conf": "a\n", "routes": "b\n", "targets": "c\n"}
    configure(files)
    said(tmp_path)
    changed = files | {name: "new\n"}

    would = configure(changed, _ansible_check_mode=True)

    assert (would["changed"], would["files"]) == (True, [str(tmp_path / name)])
    assert [entry["after"] for entry in would["diff"]] == ["new\n"]
    assert (tmp_path / name).read_text() == files[name]
    assert said(tmp_path) == []
    assert configure(changed)["steps"] == would["steps"]
    assert said(tmp_path) == told


def test_another_mode_is_mended_and_nothing_restarts(configure: Configure, tmp_path: Path) -> None:
    configure({"web.conf": "a\n"})
    said(tmp_path)
    (tmp_path / "web.conf").chmod(0o600)

    assert configure({"web.conf": "a\n"})["changed"]

    assert (tmp_path / "web.conf").stat().st_mode & 0o777 == 0o644
    assert said(tmp_path) == []


def test_a_secret_is_roots_alone_and_shown_nowhere(configure: Configure, tmp_path: Path) -> None:
    secrets = {str(tmp_path / "secrets/password"): "swordfish"}

    result = configure({"web.conf": "a\n"}, secrets=secrets)

    written = tmp_path / "secrets/password"
    assert (written.read_text(), written.stat().st_mode & 0o777) == ("swordfish", 0o600)
    assert result["files"][0] == str(written)
    assert "swordfish" not in json.dumps(result)
    assert configure({"web.conf": "a\n"}, secrets=secrets)["changed"] is False
    said(tmp_path)
    changed = configure({"web.conf": "a\n"}, secrets={str(written): "catfish"})
    assert changed["steps"] == ["restart"]
    assert "fish" not in json.dumps(changed)
    assert changed["diff"][0]["before"] != changed["diff"][0]["after"]


def test_a_shared_secret_is_its_groups_too_and_checked_and_taken_up_as_said(
    configure: Configure, tmp_path: Path
) -> None:
    path = str(tmp_path / "web.yml")
    shared = {"path": path, "check": ["picky", "%s"], "taken_up_by": "nothing"}

    def write(content: str) -> dict[str, Any]:
        return configure({"web.conf": "a\n"}, shared, secrets={path: content}, secrets_group="adm")

    first = write("swordfish")
    assert ((tmp_path / "web.yml").stat().st_mode & 0o777, first["steps"]) == (0o640, ["enable", "start"])
    refused = write("refused, catfish")
    assert "web.yml stays as it is: picky refuses it" in refused["msg"]
    assert (tmp_path / "web.yml").read_text() == "swordfish"
    changed = write("another fish")
    assert (changed["steps"], changed["files"]) == ([], [path])
    assert "fish" not in json.dumps([first, refused, changed])


def test_what_is_not_wanted_in_a_directory_of_ours_goes_and_is_forgotten(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/old").write_text("o\n")
    alone = {"alone_in": [str(tmp_path / "rules"), str(tmp_path / "absent")]}
    configure({"web.conf": "a\n", "rules/own": "o\n"})
    said(tmp_path)

    would = configure({"web.conf": "a\n", "rules/own": "o\n"}, **alone, _ansible_check_mode=True)
    result = configure({"web.conf": "a\n", "rules/own": "o\n"}, **alone)

    assert would["files"] == result["files"] == [str(tmp_path / "rules/old")]
    assert (result["steps"], said(tmp_path)) == (["reload"], ["reload web.service"])
    assert [path.name for path in (tmp_path / "rules").iterdir()] == ["own"]
    assert not configure({"web.conf": "a\n", "rules/own": "o\n"}, **alone)["changed"]
    (tmp_path / "rules/old").write_text("o\n")
    assert "runs with the old ones" in configure({"web.conf": "bad\n", "rules/own": "o\n"}, **alone)["msg"]
    assert (tmp_path / "rules/old").read_text() == "o\n"


def test_a_service_that_wants_to_know_who_asks_is_told(configure: Configure) -> None:
    class Login(Health):
        def do_GET(self) -> None:
            if self.headers["Authorization"] == "Basic YWRtaW46c3dvcmRmaXNo":
                return super().do_GET()
            return self.send_error(401)

    with HTTPServer(("127.0.0.1", 0), Login) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        urls = [f"http://127.0.0.1:{server.server_port}/"]
        try:
            assert "failed" not in configure({"web.conf": "a\n"}, urls=urls, login="admin:swordfish")
            assert "401" in configure({"web.conf": "a\n"}, urls=urls)["msg"]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that a service shows, with its key, and one of somebody else; neither has an address in it."""
    for name in ("own", "other"):
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=grafana.example", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*request, *names], cwd=tmp_path, check=True, capture_output=True)
    with (tmp_path / "own.pem").open("a") as own:
        own.write((tmp_path / "own.key").read_text())
    return tmp_path / "own.pem", tmp_path / "other.pem"


def test_a_service_is_asked_by_tls_and_has_to_show_its_certificate(
    configure: Configure, certificates: tuple[Path, Path]
) -> None:
    own, other = certificates
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        urls = [f"https://127.0.0.1:{server.server_port}/"]
        try:
            assert "failed" not in configure({"web.conf": "a\n"}, urls=urls, certificate=str(own))
            assert "CERTIFICATE_VERIFY_FAILED" in configure({"web.conf": "a\n"}, urls=urls)["msg"]
            refused = configure({"web.conf": "a\n"}, urls=urls, certificate=str(other))
        finally:
            server.shutdown()
            thread.join()
    assert "CERTIFICATE_VERIFY_FAILED" in refused["msg"]


def test_what_is_refused_leaves_all_files_as_they_were(configure: Configure, tmp_path: Path) -> None:
    configure({"web.conf": "a\n"})
    said(tmp_path)

    result = configure({"web.conf": "b\n", "fresh": "b\n", "routes": "refused\n"})

    routes = tmp_path / "routes"
    assert result["failed"]
    assert result["msg"] == f"{routes} stays as it is: picky refuses it. in {routes} is something refused"
    assert (tmp_path / "web.conf").read_text() == "a\n"
    assert not (tmp_path / "fresh").exists()
    assert not list(tmp_path.glob(".*.new"))


def test_the_old_files_come_back_when_it_does_not_run_with_the_new(configure: Configure, tmp_path: Path) -> None:
    configure({"web.conf": "a\n"})
    said(tmp_path)

    result = configure({"web.conf": "bad\n"})

    new = tmp_path / "web.conf"
    expected = f"web does not answer with the new {new} (web is bad). It runs with the old ones, which are back."
    assert result["msg"] == expected
    assert (tmp_path / "web.conf").read_text() == "a\n"
    assert said(tmp_path) == ["restart web.service", "restart web.service"]


def test_one_that_runs_and_does_not_answer_is_a_failure(configure: Configure, url: str) -> None:
    configure({"web.conf": "a\n"})

    result = configure({"web.conf": "a\n"}, answer="fine")

    assert result["msg"] == (f"web does not answer ({url}: it says 'ok\\n'). Ask its journal: journalctl --unit=web")


@pytest.mark.parametrize(
    ("name", "verbs"),
    [("web.conf", ["restart"]), ("routes", ["reload"]), ("targets", []), ("somebody's", ["reload"])],
)
def test_what_a_run_wrote_that_was_killed_then_is_taken_up_by_the_next_and_what_somebody_else_wrote(
    configure: Configure, tmp_path: Path, name: str, verbs: list[str]
) -> None:
    files, reads = {"web.conf": "a\n", "routes": "b\n", "targets": "c\n"}, [str(tmp_path / "somebody's")]
    configure(files, reads=reads)
    said(tmp_path)
    (tmp_path / name).write_text("new\n")
    files |= {name: "new\n"} if name in files else {}
    would = configure(files, reads=reads, _ansible_check_mode=True)

    assert (would["changed"], would["files"], would["diff"]) == (bool(verbs), [], [])
    assert configure(files, reads=reads)["steps"] == would["steps"]
    assert said(tmp_path) == [f"{verb} web.service" for verb in verbs]
    assert not configure(files, reads=reads)["changed"]


def test_a_restart_or_a_reload_by_somebody_else_counts(configure: Configure, tmp_path: Path) -> None:
    configure({"web.conf": "a\n", "routes": "b\n"})
    (tmp_path / "routes").write_text("new\n")
    subprocess.run(["systemctl", "reload", "web.service"], check=True)

    assert not configure({"web.conf": "a\n", "routes": "new\n"})["changed"]

    (tmp_path / "web.conf").write_text("new\n")
    subprocess.run(["systemctl", "reload", "web.service"], check=True)
    assert configure({"web.conf": "new\n", "routes": "new\n"})["steps"] == ["restart"]


def test_a_unit_that_systemd_has_not_read_is_read_before_the_restart(configure: Configure, tmp_path: Path) -> None:
    configure({"units/web.service": "a\n"})
    said(tmp_path)
    (tmp_path / "outdated").touch()
    assert not configure({"units/web.service": "a\n"})["changed"]
    assert said(tmp_path) == []
    (tmp_path / "units/web.service").write_text("b\n")

    configure({"units/web.service": "b\n"})

    assert said(tmp_path) == ["daemon-reload", "restart web.service"]


def test_a_file_from_the_future_is_no_reason_to_restart_in_every_run(configure: Configure, tmp_path: Path) -> None:
    configure({"web.conf": "a\n"})
    tomorrow = time.time() + 86400
    os.utime(tmp_path / "web.conf", (tomorrow, tomorrow))

    assert not configure({"web.conf": "a\n"})["changed"]


def test_without_its_release_nothing_is_done(configure: Configure, tmp_path: Path) -> None:
    release = str(tmp_path / "releases/2")

    result = configure({"web.conf": "a\n"}, packages=[], release=release)

    assert (result["changed"], result["missing"]) == (False, [release])
    assert not (tmp_path / "web.conf").exists()


def test_other_releases_go_once_the_service_runs(configure: Configure, tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    for path in (releases / "1/bin", releases / "2/bin", releases / ".3.part"):
        path.mkdir(parents=True)
    (releases / "3.tar.gz").touch()
    given = {"packages": [], "release": str(releases / "2")}
    others = [str(releases / name) for name in (".3.part", "1", "3.tar.gz")]

    assert "failed" in configure({"web.conf": "bad\n"}, **given)
    assert len(list(releases.iterdir())) == 4, "whatever it ran from is still there"
    would = configure({"web.conf": "a\n"}, _ansible_check_mode=True, **given)
    assert len(list(releases.iterdir())) == 4

    result = configure({"web.conf": "a\n"}, **given)

    assert result["files"] == would["files"] == [str(tmp_path / "web.conf"), *others]
    assert [entry["before"] for entry in result["diff"]][1:] == [f"{path}\n" for path in others]
    assert [path.name for path in releases.iterdir()] == ["2"]
    assert not configure({"web.conf": "a\n"}, **given)["changed"]


def test_a_unit_goes_with_a_restart_and_comes_back_when_that_fails(configure: Configure, tmp_path: Path) -> None:
    own = tmp_path / "units/web.service"
    files = {"units/web.service": "[Service]\n", "web.conf": "a\n"}
    configure(files)
    said(tmp_path)

    result = configure({"web.conf": "bad\n"}, absent=[str(own)])

    assert f"web does not answer with the new {tmp_path / 'web.conf'}, {own}" in result["msg"]
    assert own.read_text() == "[Service]\n"
    said(tmp_path)
    would = configure({"web.conf": "a\n"}, absent=[str(own)], _ansible_check_mode=True)
    assert own.exists()
    result = configure({"web.conf": "a\n"}, absent=[str(own)])
    assert (result["files"], result["steps"]) == (would["files"], would["steps"]) == ([str(own)], ["restart"])
    assert not own.exists()
    assert said(tmp_path) == ["daemon-reload", "restart web.service"]


def test_files_that_must_not_be_there_go(configure: Configure, tmp_path: Path) -> None:
    configure({"web.conf": "a\n"})
    (tmp_path / "default").symlink_to("nowhere")
    said(tmp_path)

    result = configure({"web.conf": "a\n"}, absent=[str(tmp_path / "default"), str(tmp_path / "another")])

    assert (result["changed"], result["files"]) == (True, [str(tmp_path / "default")])
    assert not (tmp_path / "default").is_symlink()
    assert said(tmp_path) == []
