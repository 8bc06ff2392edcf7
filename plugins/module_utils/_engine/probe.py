"""What proves that an engine works, by what its model does; pure but for :func:`ask`, private to the collection.

``generate`` answers a text, ``embed`` a vector, ``score`` how well two texts belong together, ``classify`` what a text
is, ``transcribe`` the words of a recording. The paths are those of vLLM's API server (vllm/entrypoints).
"""

from __future__ import annotations

import io
import json
import math
import struct
import time
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import ApiError
from .openai import OpenAiClient

__all__ = ["TASKS", "Answer", "ask", "canary", "recording"]

TASKS = ("generate", "embed", "score", "classify", "transcribe")

TRANSCRIPTIONS = "/v1/audio/transcriptions"
_OTHER = "The weather is fine."  # what a scored text is compared with
_RATE = 16000  # samples a second, what speech models hear: nothing has to be resampled
_BOUNDARY = "gpuhosts-recording"  # cannot stand in the recording, which holds nothing but numbers
_SHOWN = 300  # characters of an unexpected answer that a message quotes


@dataclass(frozen=True)
class Answer:
    """What an engine answered."""

    text: str  # the answer itself, or in words what it is
    chunks: int  # pieces that it came in
    first_seconds: float  # from sending the request to the first piece
    seconds: float  # ... to the end


def canary(task: str, model: str) -> dict[str, Any] | None:
    """The cheapest request that only a working engine answers: ``path`` and ``body`` (JSON) of a POST.

    None where there is none that is JSON: a recording is sent as a form.
    """
    if task == "generate":
        body = {"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0}
        return {"path": "/v1/completions", "body": body}
    return {"path": _JSON[task].path, "body": _JSON[task].body(model, "a")} if task in _JSON else None


def ask(client: OpenAiClient, task: str, model: str, prompt: str, max_tokens: int, *, stream: bool = False) -> Answer:
    """Ask the model what it is for, and check that the answer is one.

    :raises ApiError: it is none.
    """
    start = time.monotonic()
    if task == "generate" and stream:
        chat = client.chat(model, prompt, max_tokens)
        return Answer(chat.text, chat.chunks, chat.first_seconds, chat.seconds)
    if task == "generate":
        text = client.complete(model, prompt, max_tokens)
    elif task == "transcribe":
        content, kind = _form(model, recording())
        text = _read(_transcript, client.post(TRANSCRIPTIONS, content, kind), TRANSCRIPTIONS, model)
    else:
        kind_of = _JSON[task]
        body = json.dumps(kind_of.body(model, prompt)).encode()
        text = _read(kind_of.read, client.post(kind_of.path, body), kind_of.path, model)
    seconds = time.monotonic() - start
    return Answer(text, 1, seconds, seconds)


def recording(seconds: float = 0.5) -> bytes:
    """A tone as a WAV file, which every speech model takes for a recording."""
    samples = [int(8000 * math.sin(2 * math.pi * 440 * place / _RATE)) for place in range(int(seconds * _RATE))]
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


@dataclass(frozen=True)
class _Kind:
    """How a task is asked for in JSON, and what its answer says."""

    path: str
    body: Callable[[str, str], dict[str, Any]]  # of the model's name and a text
    read: Callable[[Any], str]  # raises what json.loads or a wrong shape raise


def _vector(answer: Any) -> str:
    numbers = _numbers(answer["data"][0]["embedding"])
    return f"a vector of {len(numbers)} numbers"


def _score(answer: Any) -> str:
    return f"a score of {_numbers([answer['data'][0]['score']])[0]:.4f}"


def _classes(answer: Any) -> str:
    data = answer["data"][0]["data"]
    rows = data if isinstance(data[0], list) else [data]  # one for each token, or one for the text
    return f"{len(_numbers(rows[0]))} classes of {len(rows)} parts"


def _transcript(answer: Any) -> str:
    if not isinstance(answer["text"], str):  # which may be empty: a tone has no words
        raise TypeError
    return f"a transcript of {len(answer['text'])} characters"


_JSON: Mapping[str, _Kind] = {
    "embed": _Kind("/v1/embeddings", lambda model, text: {"model": model, "input": text}, _vector),
    "score": _Kind("/v1/score", lambda model, text: {"model": model, "text_1": text, "text_2": _OTHER}, _score),
    # vLLM has no other path for a classifier of several classes, and for one of tokens; it asks for no key there.
    "classify": _Kind("/pooling", lambda model, text: {"model": model, "input": text}, _classes),
}


def _numbers(values: Any) -> list[float]:
    """The values, if they are numbers that something can be done with."""
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers


def _read(read: Callable[[Any], str], answer: str, path: str, model: str) -> str:
    try:
        return read(json.loads(answer))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        shown = " ".join(answer.split())[:_SHOWN] or "(empty)"
        raise ApiError(f"{path} answered for model {model!r} what is no answer: {shown}") from error


def _form(model: str, sound: bytes) -> tuple[bytes, str]:
    """A form with a recording (RFC 7578), and its content type."""
    head = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("model", model), ("response_format", "json"))
    )
    head += (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="tone.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return head.encode() + sound + f"\r\n--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}"
