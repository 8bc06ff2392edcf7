"""The module alert_silence, from its arguments to what Alertmanager is told."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.modules import alert_silence

from tests.unit.plugins.conftest import RunModule

NAME = "maintenance of gpu1"
ALERTS = [{"host": ["gpu1"]}, {"instance_id": ["tiny-2", "tiny-1"]}, {"model": []}]
HOST, INSTANCES = 'host=~"gpu1"', r'instance_id=~"tiny\-1|tiny\-2"'


class Api:
    """The part of Alertmanager's API that is asked, with the silences that it has."""

    def __init__(self) -> None:
        self.silences: list[dict[str, Any]] = []
        self.refuses = False
        self.url = ""

    def post(self, body: dict[str, Any]) -> dict[str, str]:
        known = [silence for silence in self.silences if silence["id"] == body.get("id")]
        if not known:
            self.silences.append({**body, "id": str(len(self.silences)), "status": {"state": "active"}})
        for silence in known:
            assert silence["matchers"] == body["matchers"]
            silence.update(body)
        return {"silenceID": "?"}

    def left(self) -> dict[str, int]:
        """Minutes that each active silence still has, by its matchers."""
        now = datetime.datetime.now(datetime.UTC)
        return {
            " ".join(f'{m["name"]}=~"{m["value"]}"' for m in silence["matchers"]): round(
                (datetime.datetime.fromisoformat(silence["endsAt"]) - now).total_seconds() / 60
            )
            for silence in self.silences
            if silence["status"]["state"] == "active"
        }


@pytest.fixture
def api() -> Iterator[Api]:
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, result: Any) -> None:
            self.send_response(400 if state.refuses else 200)
            self.end_headers()
            self.wfile.write(json.dumps("no such thing" if state.refuses else result).encode())

        def do_GET(self) -> None:
            assert self.path == "/api/v2/silences"
            self.answer(state.silences)

        def do_POST(self) -> None:
            self.answer(state.post(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def do_DELETE(self) -> None:
            (silence,) = (entry for entry in state.silences if self.path == f"/api/v2/silence/{entry['id']}")
            silence["status"]["state"] = "expired"
            self.answer(None)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/"
        yield state
        server.shutdown()
        thread.join()


def test_silences_are_made_once_and_prolonged_when_half_of_the_time_is_over(run_module: RunModule, api: Api) -> None:
    wish = {"url": api.url, "name": NAME, "alerts": ALERTS, "seconds": 7200}

    would = run_module(alert_silence, **wish, _ansible_check_mode=True)
    assert (would["changed"], api.silences) == (True, [])
    first = run_module(alert_silence, **wish)

    assert api.left() == {HOST: 120, INSTANCES: 120}
    assert first["said"][0].startswith(f"{HOST} is silent until ")
    assert not run_module(alert_silence, **wish)["changed"]
    assert run_module(alert_silence, **{**wish, "seconds": 4 * 7200})["changed"], "a run takes up what one has left"
    assert api.left() == {HOST: 480, INSTANCES: 480}
    assert len(api.silences) == 2


def test_they_are_lifted_after_a_moment_and_those_of_others_stay(run_module: RunModule, api: Api) -> None:
    for name in (NAME, "maintenance of gpu2"):
        run_module(alert_silence, url=api.url, name=name, alerts=[{"host": [name]}], seconds=7200)
    own = {**api.silences[0], "createdBy": "a person", "matchers": [], "id": "own", "status": {"state": "active"}}
    api.silences.append(own)

    result = run_module(alert_silence, url=api.url, name=NAME, alerts=[], seconds=120)

    assert result["changed"]
    assert sorted(api.left().values()) == [2, 120, 120]
    assert not run_module(alert_silence, url=api.url, name=NAME, alerts=[], seconds=120)["changed"]


def test_what_is_not_kept_back_any_more_is_told_at_once(run_module: RunModule, api: Api) -> None:
    run_module(alert_silence, url=api.url, name=NAME, alerts=ALERTS, seconds=7200)

    result = run_module(alert_silence, url=api.url, name=NAME, alerts=ALERTS[:1], seconds=7200)

    assert result["said"] == [f"{INSTANCES} is told again"]
    assert api.left() == {HOST: 120}


def test_an_alertmanager_that_does_not_answer_is_a_warning(
    run_module: RunModule, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(alert_silence.AnsibleModule, "warn", lambda _, text: warnings.append(text))
    api.refuses = True

    for url in (api.url, "http://127.0.0.1:9/"):
        assert not run_module(alert_silence, url=url, name=NAME, alerts=ALERTS, seconds=7200)["changed"]

    assert "was not told of the maintenance of gpu1, so that it may alert: HTTP Error 400: Bad Request" in warnings[0]
    assert "Connection refused" in warnings[1]
