"""The first error in the journals of engines that did not come up; those of vLLM's CPU build are recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.evidence import (
    LAST,
    LINES,
    Entry,
    evidence_of,
    first_error,
    read_journal,
)

JOURNALS = Path(__file__).parents[3] / "fixtures/journals"
CAUSES = {
    "context_too_long": "User-specified max_model_len (4194304) is greater than the derived max_model_len",
    "hub_out_of_reach": "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
    "kv_cache_too_small": "16.0 GiB KV cache is needed, which is larger than the available KV cache memory (9.37 GiB)",
    "no_directory": "Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/srv/nope'",
    "port_in_use": "OSError: [Errno 98] Address already in use",
    "unknown_option": "vllm: error: unrecognized arguments: --no-such-flag",
    "weights_cut_off": "SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered",
    "cuda_out_of_memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB.",
    "driver_too_old": "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).",
    "gated": "Access to model meta-llama/Llama-3.3-70B-Instruct is restricted.",
    "import_error": "ImportError: libcudart.so.13: cannot open shared object file",
    "killed_for_memory": "vllm@llama-1.service: A process of this unit has been killed by the OOM killer.",
    "no_program": "Unable to locate executable '/opt/vllm/current/bin/vllm'",
}


def recorded(name: str) -> list[str]:
    return (JOURNALS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_found(name: str) -> None:
    lines = recorded(name)
    found = first_error(lines)
    assert CAUSES[name] in "\n".join(found)
    assert len(found) <= LINES
    assert "See root cause above" not in "\n".join(found)


def test_every_journal_has_its_cause() -> None:
    assert {path.stem for path in JOURNALS.iterdir()} == set(CAUSES)


def test_the_excerpt_of_a_worker_of_several() -> None:
    """The other worker's lines, its complaint that ended nothing, and the echoes of the parents are left out."""
    assert first_error(recorded("cuda_out_of_memory")) == [
        "(Worker_TP1 pid=4291) Starting to load model /srv/models/llama...",
        "WorkerProc failed to start.",
        "Traceback (most recent call last):",
        "  ...",
        '  File "/opt/vllm/current/lib/python3.11/site-packages/vllm/linear.py", line 1021, in create_weights',
        "    data=torch.empty(",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 1 has 301.06 MiB free.",
    ]


def test_of_two_errors_the_first_counts_and_a_complaint_only_without_an_end() -> None:
    complaint = [
        "(A pid=1) ERROR 11-28 05:12:30 [fa_utils.py:57] Cannot use FA version 3",
        "(A pid=1) INFO 11-28 05:12:31 [x.py:1] x",
    ]
    assert first_error(complaint) == ["(A pid=1) Cannot use FA version 3"]
    ends = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "    f()", "KeyError: 1"]
    later = ["(B pid=2) Traceback (most recent call last):", "(B pid=2) ValueError: later"]
    assert first_error([*complaint, *ends, *later]) == ends


@pytest.mark.parametrize(
    "line",
    [
        "vllm serve: error: unrecognized arguments: --no-such-flag",
        "Fatal Python error: Segmentation fault",
        "terminate called after throwing an instance of 'c10::Error'",
        "/opt/vllm/current/bin/python: error while loading shared libraries: libpython3.11.so: cannot open",
        "vllm@a.service: Main process exited, code=dumped, status=11/SEGV",
        "vllm@a.service: Failed to load environment files: No such file or directory",
        "keeper: epoch 1795884231625 ends: the engine was killed by SIGKILL",
        "keeper: epoch 1795884231625 ends: the engine cannot be started: [Errno 2] No such file: '/opt/vllm/bin/vllm'",
        "keeper: epoch 1795884231625 ends: the engine at http://10.0.0.1:8000 gave no token for 90 s",
        "keeper: epoch 1795884231625 ends: rank 0: rank 1 was silent for 20 s",
        "(APIServer pid=1) CRITICAL 11-28 05:12:30.123 [a.py:1] it is over",
        "\x1b[31mERROR:\x1b[0m    [Errno 98] error while attempting to bind on address",
    ],
)
def test_ends_without_a_traceback(line: str) -> None:
    *_, found = first_error(["(APIServer pid=1) INFO 11-28 05:12:00 [a.py:1] fine", line, "vllm@a.service: Stopped."])
    assert line.replace("\x1b[31m", "").replace("\x1b[0m", "").endswith(found)


def test_what_the_keeper_says_of_an_engine_that_told_why_it_ended_is_no_error() -> None:
    ends = ["Traceback (most recent call last):", "ValueError: no memory"]
    lines = [
        "keeper: epoch 1795884231625 starts",
        *ends,
        "keeper: epoch 1795884231625 ends: the engine ended with status 1",
    ]
    assert first_error(lines) == ends[1:]
    assert first_error([lines[0], lines[-1], "keeper: epoch 1795884231626 ends: stopped"]) == []


def test_only_echoes_are_better_than_nothing() -> None:
    echo = "(APIServer pid=77) RuntimeError: Engine core initialization failed. See root cause above."
    assert first_error(["(APIServer pid=77) Traceback (most recent call last):", echo]) == [echo]


def test_a_warning_with_a_traceback_is_no_error_and_neither_is_silence() -> None:
    head = "(APIServer pid=1) WARNING 11-28 05:12:30 [a.py:1] "
    lines = [f"{head}Traceback (most recent call last):", f"{head}ImportError: no flash attention"]
    assert first_error(lines) == first_error([]) == []


def test_what_is_long_is_cut() -> None:
    lines = ["Traceback (most recent call last):", f"ValueError: {'x' * 10_000}", *["more"] * 10_000]
    found = first_error(lines * 3)
    assert len(found) <= LINES
    assert max(map(len, found)) < 700


def journal(*starts: list[str]) -> list[Entry]:
    return [Entry(line, f"start-{number}", 1000.0 * number) for number, lines in enumerate(starts, 1) for line in lines]


BROKEN = ["ERROR: broken"]
FINE = ["INFO: fine"] * 50


def test_the_last_start_counts() -> None:
    found = evidence_of(journal(["ERROR: of last year"], BROKEN, FINE))
    assert found is not None
    assert (found.lines, found.error, found.invocation, found.seconds) == (
        ("INFO: fine",) * LAST,
        False,
        "start-3",
        3000,
    )


def test_of_starts_that_systemd_made_by_itself_the_last_that_failed_counts() -> None:
    found = evidence_of(journal(["ERROR: before"], BROKEN, FINE), restarts=2)
    assert found is not None
    assert (found.lines, found.error, found.invocation) == (("ERROR: broken",), True, "start-2")
    kept = evidence_of(journal(["ERROR: of last year"], FINE, FINE), restarts=1)
    assert kept is not None
    assert not kept.error


def test_an_empty_journal_is_no_evidence() -> None:
    assert evidence_of([]) is None
    assert evidence_of([Entry("-- No entries --")]) is None


def test_the_journal_is_read_as_journalctl_prints_it() -> None:
    records = [
        {"MESSAGE": "Started", "INVOCATION_ID": "a", "__REALTIME_TIMESTAMP": "1700000000500000"},
        {"MESSAGE": list(b"\x1b[31mERROR:\x1b[0m \xff"), "_SYSTEMD_INVOCATION_ID": "a", "INVOCATION_ID": "b"},
        {"MESSAGE": None, "_SYSTEMD_INVOCATION_ID": "a"},
    ]
    output = "\n".join([*map(json.dumps, records), '{"MESSAGE": "cut o'])
    assert read_journal(output) == [
        Entry("Started", "a", 1700000000.5),
        Entry("\x1b[31mERROR:\x1b[0m �", "a", 0.0),
        Entry("", "a", 0.0),
    ]
