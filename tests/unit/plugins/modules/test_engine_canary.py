"""The module engine_canary: engines that were changed are watched while they serve."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.canary import Counts, Limits, judge
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ApiError
from ansible_collections.gpuhosts.vllm.plugins.modules import engine_canary

from tests.unit.plugins.conftest import RunModule
from tests.unit.plugins.scripted_engine import Engine

PATHS = '{handler="/v1/completions",method="POST",status="%s"}'


def metrics(good: int, failed: int = 0, broken: int = 0, slow: int = 0) -> str:
    """What an engine has counted: answers, those of status 500, those that ended in an error, slow first tokens."""
    return "\n".join(
        [
            f"http_requests_total{PATHS % '2xx'} {good}.0",
            f"http_requests_total{PATHS % '5xx'} {failed}.0",
            'http_requests_total{handler="/metrics",method="GET",status="5xx"} 7.0',
            f'vllm:request_success_total{{engine="0",finished_reason="error",model_name="a"}} {broken}.0',
            f'vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.5",model_name="a"}} {good - slow}.0',
            f'vllm:time_to_first_token_seconds_bucket{{engine="0",le="2.5",model_name="a"}} {good}.0',
            f'vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf",model_name="a"}} {good}.0',
        ]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (metrics(100), ""),
        (metrics(18, failed=1), ""),  # 19 in all
        (metrics(99, failed=1), ""),  # just the limit
        (metrics(98, failed=2), "2.0% of 100 requests failed; 1.0% is the limit"),
        (metrics(98, failed=2, broken=2), "2.0% of 100 requests failed; 1.0% is the limit"),
        (metrics(100, broken=2), "2.0% of 100 requests failed; 1.0% is the limit"),
        (metrics(100, slow=5), ""),
        # Of the ten slow ones, which lie evenly between 0.5 and 2.5 s, the middle.
        (metrics(100, slow=10), "one in 20 requests waited 1.50 s or longer for its first token; 1 s is the limit"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_rates_and_first_tokens_are_judged_from_twenty_requests_on(text: str, said: str) -> None:
    assert judge(Counts.read(text), Limits(0.01, ttft=1)) == said


def test_what_lies_beyond_the_last_bound_is_at_least_that_late() -> None:
    beyond = metrics(100, slow=50).replace('le="2.5",model_name="a"} 100', 'le="2.5",model_name="a"} 60')
    assert Counts.read(beyond).late(0.95) == 2.5


def test_only_what_is_counted_meanwhile_is_judged(run_module: RunModule, engine: Engine) -> None:
    engine.metrics = metrics(1000, failed=500)
    told = run_module(engine_canary, engines={"tiny-1": engine.url}, seconds=0.05, every=0.01)
    assert (told["requests"], told["changed"]) == ({"tiny-1": 0}, False)


def watched(texts: list[str | None], **limits: Any) -> dict[str, Counts]:
    """Look at an engine that tells these metrics in turn; None is no answer."""

    class Client:
        def text(self, _path: str) -> str:
            said = texts.pop(0) if len(texts) > 1 else texts[0]
            if said is None:
                raise ApiError("it is away")
            return said

    seconds = limits.pop("seconds", 5)
    return engine_canary.watch({"tiny-1": Client()}, Limits(**limits), seconds, 0.001)  # type: ignore[dict-item]


def test_it_ends_as_soon_as_too_many_fail() -> None:
    with pytest.raises(ApiError, match=r"tiny-1: 50\.0% of 40 requests failed"):
        watched([metrics(100), metrics(110), metrics(120, failed=20)], error_rate=0.01)


def test_an_engine_that_is_away_twice_in_a_row_has_failed() -> None:
    well = metrics(100)
    with pytest.raises(ApiError, match="it is away"):
        watched([well, None, well, None, None], error_rate=0.01)
    assert watched([well, None, well], error_rate=0.01, seconds=0.05)["tiny-1"].answered == 0
