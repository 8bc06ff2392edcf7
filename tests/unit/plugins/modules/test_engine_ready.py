"""The module engine_ready, from its arguments to its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import answer, ready
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.configuration import environment_file
from ansible_collections.gpuhosts.vllm.plugins.modules import engine_ready

from tests.unit.plugins.conftest import RunModule
from tests.unit.plugins.scripted_engine import Engine

UNIT = "vllm@tiny-1.service"
SHOW = ["systemctl", "show", UNIT, "--property=LoadState,ActiveState,Result,NRestarts,Job"]
SINCE = ["systemctl", "show", UNIT, "--property=ActiveEnterTimestampMonotonic", "--value"]
BOOT = ["journalctl", "-u", UNIT, "--since", "@1700000000", "--until", "@1700000900", "--no-pager", "-o", "cat"]
FIELDS = "--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID"
JOURNAL = ["journalctl", "-u", UNIT, "-n", "10000", "--no-pager", "--all", "-o", "json", FIELDS]


class Systemd:
    """What systemctl and journalctl would print."""

    state = "LoadState=loaded\nActiveState=active\nResult=success\nNRestarts=0\n"
    since = "60000000\n"  # a minute after the boot
    boot = ""
    journal = "".join(
        json.dumps({"MESSAGE": line, "_SYSTEMD_INVOCATION_ID": "c0ffee", "__REALTIME_TIMESTAMP": "1700000000000000"})
        + "\n"
        for line in ("INFO starting", "ERROR: out of memory, key was s3cret", *["INFO the end"] * 100)
    )

    def run_command(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        answers = ((SHOW, self.state), (SINCE, self.since), (BOOT, self.boot), (JOURNAL, self.journal))
        (answer,) = (answer for known, answer in answers if known == command)
        return 0, answer, ""


@pytest.fixture(autouse=True)
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    pretended = Systemd()
    monkeypatch.setattr(AnsibleModule, "run_command", pretended.run_command)
    monkeypatch.setattr(answer, "boot_time", lambda: 1699999940.5)
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.01)
    return pretended


def test_it_tells_what_the_engine_resolved(run_module: RunModule, engine: Engine) -> None:
    engine.key = "s3cret"
    result = run_module(engine_ready, unit=UNIT, url=engine.url, model="tiny", api_key="s3cret")
    assert (result["changed"], result["stage"]) == (False, "answer")
    assert (result["effective"]["num_gpu_blocks"], result["effective"]["max_model_len"]) == (256, 512)
    assert engine.requests[0]["prompt"] == "Say hello."


def test_it_asks_with_the_key_that_the_engine_was_started_with(
    run_module: RunModule, engine: Engine, tmp_path: Path
) -> None:
    engine.key = 's3"cr\\et'
    secrets = tmp_path / "secrets.env"
    secrets.write_text(environment_file({"HF_TOKEN": "other", "VLLM_API_KEY": engine.key}, "# ours\n"))
    asked = {"unit": UNIT, "url": engine.url, "model": "tiny", "api_key": "the new one"}
    assert run_module(engine_ready, **asked, secrets_file=str(secrets))["stage"] == "answer"
    assert run_module(engine_ready, **asked)["failed"]


def test_it_loads_the_adapters_that_are_wanted(run_module: RunModule, engine: Engine, tmp_path: Path) -> None:
    engine.settings.takes_adapters = True
    (tmp_path / "adapter_config.json").write_text("{}")
    wanted = [{"name": "sql", "source": str(tmp_path)}]
    first, second = (run_module(engine_ready, unit=UNIT, url=engine.url, model="tiny", adapters=wanted) for _ in "12")
    assert (first["changed"], first["adapters"]) == (True, [f"sql is served from {tmp_path}"])
    assert (second["changed"], second["adapters"]) == (False, [])


@pytest.mark.parametrize(
    ("boot", "expected"),
    [
        ("Compiling a graph for compile range (1, 8192) takes 9.71 s\n", "cold"),
        ("Directly load AOT compilation from path /var/lib/vllm/cache\n", "warm"),
        ("Enforce eager set, disabling torch.compile\n", None),
    ],
)
def test_it_tells_what_boot_it_was(
    run_module: RunModule, engine: Engine, systemd: Systemd, boot: str, expected: str | None
) -> None:
    systemd.boot = boot
    effective = run_module(engine_ready, unit=UNIT, url=engine.url, model="tiny")["effective"]
    assert effective.get("boot") == expected


def test_it_fails_with_the_first_error_and_without_the_key(
    run_module: RunModule, engine: Engine, systemd: Systemd
) -> None:
    systemd.state = systemd.state.replace("=active", "=failed").replace("=success", "=exit-code")
    result = run_module(engine_ready, unit=UNIT, url=engine.url, model="tiny", api_key="s3cret")
    assert (result["failed"], result["stage"]) == (True, "unit")
    first, title, evidence, *_, last = result["msg"].splitlines()
    assert first == f"{UNIT} is not ready. It came to the stage 'unit': it is failed (result: exit-code)."
    assert title.startswith("The first error since its start at 2023-11-1")
    assert evidence == result["journal"][0] == "ERROR: out of memory, key was ********"
    command = "journalctl _SYSTEMD_INVOCATION_ID=c0ffee + INVOCATION_ID=c0ffee"
    assert (result["journal_command"], last) == (command, f"All of it, on that host: {command}")


def test_an_empty_journal(run_module: RunModule, engine: Engine, systemd: Systemd) -> None:
    engine.key, systemd.journal = "s3cret", ""
    result = run_module(engine_ready, unit=UNIT, url=engine.url, model="tiny")
    assert result["msg"].endswith("it wants an API key, and none was given; set vllm_api_key. Its journal is empty.")


def test_what_is_no_url(run_module: RunModule) -> None:
    assert run_module(engine_ready, unit=UNIT, url="gpu1", model="tiny")["msg"].startswith("'gpu1' is not an http://")


def test_check_mode_contacts_nobody(run_module: RunModule) -> None:
    result = run_module(engine_ready, unit=UNIT, url="http://127.0.0.1:1", model="tiny", _ansible_check_mode=True)
    assert result["skipped"]
    assert "failed" not in result
