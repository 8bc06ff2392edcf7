"""vllm_models as the operator writes them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import WishError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import Adapter, Parallelism, Wish, read_wishes

TINY: dict[str, Any] = {"name": "tiny", "source": "/srv/models/tiny"}
GROUPS = {"all": ["gpu1", "gpu2", "lb1"], "gpu_hosts": ["gpu1", "gpu2"], "load_balancers": ["lb1"]}


def problems_of(models: Any, version: str = "0.33.0") -> list[str]:
    with pytest.raises(WishError) as caught:
        read_wishes(models, version, GROUPS)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_name_and_source_are_enough() -> None:
    assert read_wishes([TINY]) == ([Wish(where="vllm_models[0]", name="tiny", source="/srv/models/tiny")], [])


def test_auto_is_the_same_as_nothing() -> None:
    keys = (
        "revision replicas context_length concurrency parallelism gpu_memory_utilization kv_cache_dtype executor port"
    )
    assert read_wishes([TINY | dict.fromkeys(keys.split(), "auto")]) == read_wishes([TINY])
    assert read_wishes([TINY | dict.fromkeys([*keys.split(), "hosts", "extra_args", "env"])]) == read_wishes([TINY])


def test_everything_that_can_be_wished() -> None:
    entry = TINY | {
        "source": "acme/tiny",
        "revision": "abc",
        "replicas": "2",  # what Ansible before 2.19 makes of a template
        "objective": "throughput",
        "context_length": 4096,
        "concurrency": 8,
        "parallelism": {"tensor": 2, "pipeline": 2, "expert": True},
        "gpu_memory_utilization": 0.5,
        "kv_cache_dtype": "fp8",
        "runtime": "systemd",
        "executor": "mp",
        "port": 9000,
        "hosts": ["gpu_hosts", "lb1"],
        "lora": [{"name": "sql", "source": "/srv/adapters/sql"}],
        "extra_args": {"enforce_eager": True},
        "env": {"B": 1, "A": "x"},
    }
    (wish,), warnings = read_wishes([entry], "0.33.0", GROUPS)
    assert warnings == []
    assert wish == Wish(
        where="vllm_models[0]",
        name="tiny",
        source="acme/tiny",
        revision="abc",
        replicas=2,
        context_length=4096,
        concurrency=8,
        parallelism=Parallelism(2, 2, True),
        gpu_memory_utilization=0.5,
        kv_cache_dtype="fp8",
        executor="mp",
        port=9000,
        host_names=frozenset({"gpu1", "gpu2", "lb1"}),
        lora=(Adapter("sql", "/srv/adapters/sql"),),
        extra_args={"enforce-eager": True},
        env={"A": "x", "B": "1"},
    )


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("https://huggingface.co/Qwen/Qwen3-8B", "Set source to Qwen/Qwen3-8B."),
        ("https://hf.co/Qwen/Qwen3-8B/tree/v1.0", "Set source to Qwen/Qwen3-8B, revision to v1.0."),
        ("https://huggingface.co/a/b/resolve/main/c/d.json?download=true", "Set source to a/b, revision to main."),
        (
            "https://hub.example/api/hf/Qwen/Qwen3-8B/",
            "Set source to Qwen/Qwen3-8B, and fleet_hub_endpoint to https://hub.example/api/hf, for all models.",
        ),
        ("s3://bucket/Qwen3-8B", "Put it on the hosts and name its directory there."),
    ],
)
def test_a_url_is_told_what_to_write_instead(url: str, remedy: str) -> None:
    (problem,) = problems_of([{"name": "tiny", "source": url}])
    assert problem.endswith(f"(organisation/model) nor an absolute path. {remedy}")


@pytest.mark.parametrize("models", [None, [], {}, "tiny"])
def test_no_model_at_all(models: Any) -> None:
    assert problems_of(models) == [
        "vllm_models: names no model; give it a list of entries with at least name and source."
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"replica": 2}, ": unknown key 'replica'; did you mean 'replicas'?"),
        (
            {"name": "Tiny Llama"},
            ".name: 'Tiny Llama' may hold a-z, 0-9, '.', '_' and '-', and starts with a letter or digit.",
        ),
        ({"name": 7}, ".name: 7 is not a text; quote it if it looks like a number."),
        (
            {"source": "models/a/tiny"},
            ".source: 'models/a/tiny' is neither a model of the hub (organisation/model) nor an absolute path.",
        ),
        ({"name": "m" * 101}, f".name: '{'m' * 59}... is longer than the 100 characters that fit a unit."),
        (
            {"source": "/srv/../models/tiny"},
            ".source: '/srv/../models/tiny' is no path without detours; write it without '..' and control characters.",
        ),
        (
            {"revision": "v1"},  # the model is a path
            ".revision: /srv/models/tiny is a path, and only a model of the hub has revisions; leave it out.",
        ),
        (
            {"lora": [{"name": "a", "source": "/a", "revision": "v1"}]},
            ".lora[0].revision: /a is a path, and only a model of the hub has revisions; leave it out.",
        ),
        ({"revision": 1234}, ".revision: 1234 is not a text; quote it if it looks like a number."),
        ({"replicas": 0}, ".replicas: 0 is not a whole number of at least 1."),
        ({"replicas": True}, ".replicas: True is not a whole number of at least 1."),
        ({"replicas": "all"}, ".replicas: 'all' is not a whole number of at least 1."),
        ({"task": "embedding"}, ".task: 'embedding' is not one of generate, embed, score, classify, transcribe."),
        ({"objective": "speed"}, ".objective: 'speed' is not one of throughput, latency, balanced."),
        ({"context_length": 0.5}, ".context_length: 0.5 is not a whole number of at least 1."),
        ({"parallelism": 4}, ".parallelism: 4 is neither auto nor a mapping such as {tensor: 4, pipeline: 2}."),
        ({"parallelism": {"tensors": 4}}, ".parallelism: unknown key 'tensors'; did you mean 'tensor'?"),
        ({"parallelism": {"tensor": 0}}, ".parallelism: tensor: 0 is not a whole number of at least 1."),
        ({"parallelism": {"expert": 1}}, ".parallelism: expert: 1 is neither true nor false."),
        ({"gpu_memory_utilization": 92}, ".gpu_memory_utilization: 92 is not a number above 0 and up to 1."),
        ({"gpu_memory_utilization": "most"}, ".gpu_memory_utilization: 'most' is not a number above 0 and up to 1."),
        ({"runtime": "podman"}, ".runtime: 'podman' is not one of systemd, docker."),
        ({"executor": "slurm"}, ".executor: 'slurm' is not one of mp, ray."),
        ({"port": 80}, ".port: 80 is not a whole number from 1024 to 65000."),
        ({"hosts": []}, ".hosts: [] is neither a group or host nor a list of them; leave it out for all GPU hosts."),
        (
            {"hosts": "gpu_host"},
            ".hosts: 'gpu_host' is no group and no host of the inventory; did you mean 'gpu_hosts'?",
        ),
        ({"lora": "sql"}, ".lora: 'sql' is not a list of adapters, each with name and source."),
        ({"lora": ["sql"]}, ".lora: [0]: is 'sql'; an adapter is a mapping with name and source."),
        ({"lora": [{"name": "a"}]}, ".lora: [0]: has no source; every adapter needs one."),
        (
            {"lora": [{"name": "A", "source": "/a"}]},
            ".lora: [0].name: 'A' may hold a-z, 0-9, '.', '_' and '-', and starts with a letter or digit.",
        ),
        (
            {"lora": [{"name": "a", "source": ".."}]},
            ".lora: [0].source: '..' is neither a model of the hub (organisation/model) nor an absolute path.",
        ),
        (
            {"lora": [{"name": "a", "source": "/a", "sorce": 1}]},
            ".lora: [0]: unknown key 'sorce'; did you mean 'source'?",
        ),
        (
            {"lora": [{"name": "tiny", "source": "/a"}]},
            ".lora[0].name: 'tiny' is already the name of vllm_models[0]; choose another.",
        ),
        (
            {"extra_args": {"lora-modules": ["a=/a"]}},
            ".extra_args: 'lora-modules' is not for extra_args: adapters come and go without a restart. Set lora.",
        ),
        *(
            (
                {"extra_args": {name: "/etc/tls/engine.pem"}},
                (
                    f".extra_args: '{name}' is not for extra_args: keepers, probes and the load balancer speak plain "
                    "HTTP to the engines."
                ),
            )
            for name in ("ssl-certfile", "ssl_certfile", "--ssl-keyfile")
        ),
        (
            {"extra_args": {"disable-log-stats": True}},
            (
                ".extra_args: 'disable-log-stats' is not for extra_args: a hang, a drain and what Prometheus shows are "
                "told by the metrics that it takes away."
            ),
        ),
        ({"extra_args": ["--seed"]}, ".extra_args: ['--seed'] is not a mapping of names to values."),
        (
            {"extra_args": {"max-num-seqs": 4}, "concurrency": 4},
            ".extra_args: 'max-num-seqs' is what concurrency sets; keep one of them.",
        ),
        ({"env": {"A B": "x"}}, ".env: 'A B' is not the name of an environment variable."),
        ({"env": {"A": True}}, ".env: the value of A is not a text; quote it."),
        (
            {"env": {"CUDA_VISIBLE_DEVICES": "0"}},
            ".env: CUDA_VISIBLE_DEVICES is not for env: the planner chooses the GPUs.",
        ),
        (
            {"env": {"HF_TOKEN": "hf_s3cret"}},
            ".env: HF_TOKEN is not for env: it would stand in readable files. Set vllm_hf_token.",
        ),
    ],
)
def test_every_mistake_is_named_with_its_place(change: dict[str, Any], problem: str) -> None:
    assert problems_of([TINY | change]) == [f"vllm_models[0]{problem}"]


def test_the_kv_cache_dtype_is_one_that_the_release_knows() -> None:
    (problem,) = problems_of([TINY | {"kv_cache_dtype": "fp7"}], "0.32.0")
    assert problem.startswith("vllm_models[0].kv_cache_dtype: 'fp7' is not one of auto, bfloat16, float16, fp8,")


def test_a_typo_of_the_kv_cache_dtype_is_told_on_the_default_release() -> None:
    (problem,) = problems_of([TINY | {"kv_cache_dtype": "fp9"}])
    assert problem.startswith("vllm_models[0].kv_cache_dtype: 'fp9' is not one of auto, bfloat16, float16, fp8,")
    assert problem.endswith("did you mean 'fp8'? If a plug-in of vLLM brings it, name that in env.VLLM_PLUGINS.")
    assert read_wishes([TINY | {"kv_cache_dtype": "fp8"}])[0][0].kv_cache_dtype == "fp8"
    plugged = TINY | {"kv_cache_dtype": "fp9", "env": {"VLLM_PLUGINS": "nine"}}
    assert read_wishes([plugged])[0][0].kv_cache_dtype == "fp9"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"replicas": 10**30},
            ".replicas: 1000000000000000000000000000000 is more than there can be; it is at most 10000.",
        ),
        ({"replicas": "9" * 5000}, f".replicas: '{'9' * 59}... is not a whole number of at least 1."),
        (
            {"parallelism": {"pipeline": 10**7}},
            ".parallelism: pipeline: 10000000 is more than there can be; it is at most 1024.",
        ),
        (
            {"parallelism": {"tensor": 10**5}},
            ".parallelism: tensor: 100000 is more than there can be; it is at most 1024.",
        ),
        (
            {"context_length": 10**12},
            ".context_length: 1000000000000 is more than there can be; it is at most 1000000000.",
        ),
        ({"concurrency": 10**9}, ".concurrency: 1000000000 is more than there can be; it is at most 1000000."),
    ],
)
def test_absurd_sizes_are_told_and_not_computed(change: dict[str, Any], problem: str) -> None:
    assert problems_of([TINY | change]) == [f"vllm_models[0]{problem}"]


WORDS = ["a b", "../main", "a/../b", "-x", "main\n", "a//b", "a/", "a/.b", "a:b", "~1", "é", "x" * 101, "."]


@pytest.mark.parametrize("revision", WORDS)
def test_what_cannot_be_a_revision(revision: str) -> None:
    """It is a directory in the store of models, too."""
    entry = {"name": "a", "source": "acme/a", "revision": revision}
    problems = problems_of([TINY | {"source": "acme/tiny", "revision": revision, "lora": [entry]}])
    assert [problem.partition(": ")[0] for problem in problems] == ["vllm_models[0].revision", "vllm_models[0].lora"]
    assert all(
        problem.endswith("is no branch, tag or commit, such as main, v1.0 or refs/pr/1.") for problem in problems
    )


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1.0+cu12", "a_b-c.d", "0" * 40])
def test_what_is_a_revision(revision: str) -> None:
    ((wish,), _) = read_wishes([TINY | {"source": "acme/tiny", "revision": revision}])
    assert wish.revision == revision


@pytest.mark.parametrize("source", ["/srv/a\nb", "..", ".", "a/..", "-a", "a--b", "a/b/c", "~/model", "acme/.git", " "])
def test_what_cannot_be_a_source(source: str) -> None:
    (problem,) = problems_of([TINY | {"source": source}])
    assert problem.startswith("vllm_models[0].source: ")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("HF_TOKEN", "Set vllm_hf_token."),
        ("HUGGING_FACE_HUB_TOKEN", "Set vllm_hf_token."),
        ("VLLM_API_KEY", "Set vllm_api_key."),
        ("GPUHOSTS_KEEPER_TOKEN", "Set vllm_keeper_token."),
        ("AWS_SECRET_ACCESS_KEY", "Put it into vllm_secrets as {AWS_SECRET_ACCESS_KEY: ...}."),
        ("AWS_ACCESS_KEY_ID", "Put it into vllm_secrets as {AWS_ACCESS_KEY_ID: ...}."),
        ("AWS_SESSION_TOKEN", "Put it into vllm_secrets as {AWS_SESSION_TOKEN: ...}."),
        ("OPENAI_API_KEY", "Put it into vllm_secrets as {OPENAI_API_KEY: ...}."),
        ("WANDB_APIKEY", "Put it into vllm_secrets as {WANDB_APIKEY: ...}."),
        ("db_password", "Put it into vllm_secrets as {db_password: ...}."),
        ("GITHUBTOKEN", "Put it into vllm_secrets as {GITHUBTOKEN: ...}."),
        ("AZURE_CLIENT_SECRET", "Put it into vllm_secrets as {AZURE_CLIENT_SECRET: ...}."),
    ],
)
def test_secrets_are_refused_in_both_environments_and_never_repeated(name: str, way: str) -> None:
    value = "s3cret-of-mine"
    said = f"it would stand in readable files. {way}"
    assert problems_of([TINY | {"env": {name: value}}]) == [f"vllm_models[0].env: {name} is not for env: {said}"]
    with pytest.raises(WishError) as caught:
        read_wishes([TINY], environment={name: value})
    assert caught.value.problems == [f"vllm_environment: {name} is not for vllm_environment: {said}"]


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("HF_HOME", "/home/ops/hf", "an engine sees home directories read-only"),
        ("TMPDIR", "/tmp/vllm", "an engine has a /tmp of its own, which goes with it when it stops"),
        (
            "TRITON_CACHE_DIR",
            "/srv/a b",
            "systemd takes no path with other characters than letters, digits and . _ - @ + , =",
        ),
    ],
)
def test_a_directory_that_no_engine_can_write_to_is_refused_wherever_it_is_named(
    name: str, path: str, reason: str
) -> None:
    said = f"is {path}, and {reason}. Name another directory, such as /srv/vllm, or leave it out."
    assert problems_of([TINY | {"env": {name: path}}]) == [f"vllm_models[0].env: {name} {said}"]
    with pytest.raises(WishError) as caught:
        read_wishes([TINY], environment={name: path})
    assert caught.value.problems == [f"vllm_environment: {name} {said}"]
    option = {"extra_args": {"download-dir": path}}
    assert problems_of([TINY | option]) == [f"vllm_models[0].extra_args: download-dir {said}"]
    for remedy in ({name: "/srv/vllm"}, {}):
        assert read_wishes([TINY | {"env": remedy}], environment=remedy)


def test_a_token_is_known_by_its_look() -> None:
    (problem,) = problems_of([TINY | {"env": {"MINE": "hf_" + "a" * 34}}])
    assert problem.startswith("vllm_models[0].env: MINE is not for env: it would stand in readable files.")


def test_what_only_sounds_like_a_secret_passes() -> None:
    variables = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_TOKEN_PATH": "/run/credentials/hf",
        "AWS_SHARED_CREDENTIALS_FILE": "/etc/aws/credentials",
        "MAX_TOKENS": "unlimited",
        "NCCL_DEBUG": "INFO",
    }
    (wish,), _ = read_wishes([TINY | {"env": variables}], environment={**variables, "VLLM_USE_V1": True})
    assert wish.env == variables


def test_all_mistakes_are_told_at_once() -> None:
    assert problems_of([{"nam": "tiny"}, "tiny", TINY | {"port": 8000}, TINY | {"port": 8000}]) == [
        "vllm_models[0]: has no name; every model needs one.",
        "vllm_models[0]: has no source; every model needs one.",
        "vllm_models[0]: unknown key 'nam'; did you mean 'name'?",
        "vllm_models[1]: is 'tiny'; an entry is a mapping with at least name and source.",
        "vllm_models[3].name: 'tiny' is already the name of vllm_models[2]; give every model a name of its own.",
        "vllm_models[3].port: 8000 is already the port of vllm_models[2]; choose another, or leave it out.",
    ]


def test_without_groups_hosts_are_taken_as_they_are() -> None:
    (wish,), _ = read_wishes([TINY | {"hosts": "gpu7"}])
    assert wish.host_names == {"gpu7"}


def test_a_release_without_a_catalogue_is_said() -> None:
    _, (warning,) = read_wishes([TINY], "0.99.1")
    assert warning == (
        "vLLM 0.99.1 is not in the option catalogue, which knows 0.32, 0.33: "
        "extra_args are checked by vLLM itself, on the hosts."
    )
