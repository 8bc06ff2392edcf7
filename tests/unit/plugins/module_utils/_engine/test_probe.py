"""What every kind of model is asked, and what is taken for an answer."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine import probe
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.openai import OpenAiClient
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.probe import TASKS, ask, canary, recording
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError

from tests.stand_in.server import Engine, Settings
from tests.unit.plugins.served import client, serving

ANSWERS = {
    "generate": " sase ralo",
    "embed": "a vector of 2 numbers",
    "score": "a score of 0.2000",
    "classify": "2 classes of 1 parts",
    "transcribe": "a transcript of 9 characters",
}


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with serving(Settings(models=["tiny"], task=request.param)) as one:
        yield one


@pytest.mark.parametrize(("engine", "task"), [(task, task) for task in TASKS], indirect=["engine"])
def test_every_kind_of_engine_answers(engine: Engine, task: str) -> None:
    answer = ask(client(engine), task, "tiny", "Say hello.", 2)
    assert answer.text == ANSWERS[task]
    assert (answer.chunks, answer.seconds >= answer.first_seconds > 0) == (1, True)


@pytest.mark.parametrize(("engine", "task"), [(task, task) for task in TASKS], indirect=["engine"])
def test_its_canary_is_answered(engine: Engine, task: str) -> None:
    asked = canary(task, "tiny")
    if task == "transcribe":
        assert asked is None
    else:
        assert asked is not None
        assert json.loads(client(engine).post(asked["path"], json.dumps(asked["body"]).encode()))["model"] == "tiny"


@pytest.mark.parametrize("engine", ["generate"], indirect=True)
@pytest.mark.parametrize("task", [task for task in TASKS if task != "generate"])
def test_an_engine_of_another_kind_is_none(engine: Engine, task: str) -> None:
    with pytest.raises(ApiError, match="HTTP 404"):
        ask(client(engine), task, "tiny", "Say hello.", 2)


@pytest.mark.parametrize("task", ["embed", "score", "classify", "transcribe"])
@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        '{"data": []}',
        '{"data": [{"embedding": [], "score": "much", "data": []}]}',
        '{"data": [{"embedding": [0.5, NaN], "score": NaN, "data": [[Infinity]]}]}',
        '{"text": null}',
    ],
)
def test_what_is_no_answer_is_told(monkeypatch: pytest.MonkeyPatch, task: str, said: str) -> None:
    monkeypatch.setattr(OpenAiClient, "post", lambda *_: said)
    with pytest.raises(ApiError, match="answered for model 'tiny' what is no answer: "):
        ask(OpenAiClient("http://127.0.0.1:1"), task, "tiny", "Say hello.", 2)


def test_a_classifier_of_tokens_says_of_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"data": [{"data": [[0.1, 0.2, 0.7], [0.1, 0.1, 0.8]]}]})
    monkeypatch.setattr(OpenAiClient, "post", lambda *_: said)
    assert ask(OpenAiClient("http://127.0.0.1:1"), "classify", "tiny", "x", 1).text == "3 classes of 2 parts"


def test_the_recording_is_half_a_second_of_sound() -> None:
    with wave.open(io.BytesIO(recording())) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (16000, 1, 8000)
        assert any(sound.readframes(100))
    assert probe._BOUNDARY.encode() not in recording()
