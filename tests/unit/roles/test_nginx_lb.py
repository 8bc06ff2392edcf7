"""Where the role nginx_lb gets its packages from, system by system, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from front_door_state import render, servers

ROLE = Path(__file__).resolve().parents[3] / "roles/nginx_lb"
NEWER = {"nginx_lb_version": "1.31.1"}


def templar(distribution: str, release: str, **wishes: Any) -> Templar:
    """What Ansible knows in a run on a host."""
    loader = DataLoader()
    loader.set_basedir(str(ROLE))
    variables: dict[str, Any] = {
        "inventory_hostname": "lb1",
        "ansible_facts": {"distribution": distribution, "distribution_version": release},
    }
    for path in [ROLE / "defaults/main.yml", *(ROLE / "vars").rglob("*.yml")]:
        variables |= loader.load_from_file(str(path), trusted_as_template=True)
    return Templar(loader, variables=variables | wishes)


def refusals(distribution: str, release: str, **wishes: Any) -> list[str]:
    """Messages of the preflight, on a front door that is open to all unless said otherwise."""
    wishes = {"nginx_lb_open": True} | wishes
    first, *_ = DataLoader().load_from_file(str(ROLE / "tasks/preflight.yml"), trusted_as_template=True)
    demands = templar(distribution, release, **first["vars"] | wishes).template(first["vars"]["demands"])
    return [demand["message"] for demand in demands if not demand["met"]]


def source(distribution: str, release: str, **wishes: str) -> dict[str, Any]:
    return dict(templar(distribution, release, **wishes).resolve_variable_expression("_nginx_lb_source"))


@pytest.mark.parametrize(
    ("system", "wished", "line"),
    [
        (("Ubuntu", "22.04"), "auto", "packages/ubuntu jammy nginx"),
        (("Ubuntu", "24.04"), "nginx_org", "packages/ubuntu noble nginx"),
        (("Ubuntu", "26.04"), "nginx_org", "packages/ubuntu resolute nginx"),
        (("Debian", "12.13"), "nginx_org", "packages/debian bookworm nginx"),
        (("Debian", "13.2"), "nginx_org", "packages/debian trixie nginx"),
    ],
)
def test_nginx_org_for_apt(system: tuple[str, str], wished: str, line: str) -> None:
    vendor = source(*system, nginx_lb_source=wished, nginx_lb_mirror="https://mirror/nginx", **NEWER)["vendor"]

    assert vendor["packages"] == {"nginx": "1.31.1-*", "nginx-module-njs": "1.31.1+*"}
    assert vendor["key"]["url"] == "https://mirror/nginx/keys/nginx_signing.key"
    list_, pin = vendor["files"].values()
    assert list_.endswith(f"deb [signed-by={vendor['key']['path']}] https://mirror/nginx/{line}\n")
    assert "Pin-Priority: 900" in pin


def test_the_way_back_to_the_distribution_takes_away_all_that_apt_has_of_nginx_org() -> None:
    """With its pin, apt finds no NGINX that goes with the distribution's njs."""
    vendor = source("Debian", "12.13", nginx_lb_source="nginx_org")["vendor"]

    told = (ROLE.parents[1] / "docs/hosts.md").read_text()
    assert f"apt-get remove --allow-change-held-packages {' '.join(vendor['packages'])}\n" in told
    assert f"rm {' '.join(vendor['files'])}\n" in told


@pytest.mark.parametrize("name", ["RedHat", "Rocky", "AlmaLinux", "OracleLinux"])
@pytest.mark.parametrize("release", ["9", "10"])
def test_nginx_org_for_dnf(name: str, release: str) -> None:
    vendor = source(name, f"{release}.1", **NEWER)["vendor"]

    assert vendor["packages"] == {"nginx": "1.31.1-*", "nginx-module-njs": "1.31.1+*-*"}
    assert vendor["repository"]["baseurl"] == f"https://nginx.org/packages/centos/{release}/$basearch/"
    assert vendor["repository"]["gpgkey"] == f"file://{vendor['key']['path']}"


@pytest.mark.parametrize("system", [("Debian", "12.13"), ("Debian", "13.2"), ("Ubuntu", "24.04"), ("Ubuntu", "26.04")])
def test_a_distribution_that_has_njs_is_the_source(system: tuple[str, str]) -> None:
    vendor = source(*system)["vendor"]

    assert vendor == {"manager": "apt", "packages": {"libnginx-mod-http-js": "", "nginx": ""}}


@pytest.mark.parametrize("system", [("Ubuntu", "22.04"), ("Rocky", "9.6")])
def test_one_that_has_not_is_refused_as_a_source_until_it_is_set_to_auto(system: tuple[str, str]) -> None:
    (said,) = refusals(*system, nginx_lb_source="distribution")
    assert said == f"lb1 runs {' '.join(system)}, which has no njs of its own. Set nginx_lb_source to auto."

    assert refusals(*system, nginx_lb_source="auto") == []


def test_a_version_with_known_holes_is_refused_until_it_is_that_one_or_a_later_one() -> None:
    old = {"nginx_lb_version": "1.30.1", "nginx_lb_minimum_version": "1.30.8"}
    (said,) = refusals("Rocky", "9.6", **old)
    assert said.startswith(
        "lb1 would get NGINX 1.30.1, which is older than nginx_lb_minimum_version, 1.30.8. Set nginx_lb"
    )

    assert refusals("Rocky", "9.6", **old | {"nginx_lb_version": "1.30.8"}) == []
    assert refusals("Rocky", "9.6", **old | {"nginx_lb_version": "1.31.0"}) == []
    assert refusals("Debian", "12.13", **old) == [], "the distribution repairs its own"


def test_a_system_without_a_row_is_told_those_that_have_one() -> None:
    (said,) = refusals("Ubuntu", "24.10")
    assert said.startswith("lb1 runs Ubuntu 24.10; the role nginx_lb is made for Debian 12, Debian 13, Ubuntu 22.04, ")


def model(name: str, *ports: int, **more: Any) -> dict[str, Any]:
    servers = [{"id": f"{name}-{port}", "address": "192.0.2.1", "port": port} for port in ports]
    return {"name": name, "servers": servers, **more}


def configuration(*models: dict[str, Any], system: tuple[str, str] = ("Debian", "12.13"), **wishes: Any) -> str:
    """nginx.conf, on Debian 12 unless said otherwise."""
    wishes |= {"nginx_lb_models": list(models)}
    template = trust_as_template("{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}")
    return str(templar(*system, **wishes).template(template))


def location(text: str, name: str) -> str:
    """What stands between the braces of a location without blocks of its own."""
    return text.partition(f" location {name} {{\n")[2].partition("}")[0]


def test_one_model_costs_no_script_but_for_a_response_that_may_go_on_from_another_one() -> None:
    text = configuration(model("small", 8000))

    assert "proxy_pass http://small;" in location(text, "/v1/")
    assert text.count("js_content") == location(text, "= /v1/responses").count("js_content") == 1
    assert "client_body_buffer_size 256k;" in text


def test_every_name_of_a_model_leads_to_its_servers() -> None:
    text = configuration(model("default", 8000, adapters=["org/Adapter"]), model("tiny", 8001), model("away"))

    routes = text.partition("map $model $model_location {")[2].partition("}")[0]
    assert '"\\\\default" @default;' in routes
    assert '"\\\\org/Adapter" @default;' in routes
    assert '"\\\\tiny" @tiny;' in routes
    assert "return 503;" in location(text, "@away")
    assert "192.0.2.1:8001" in text.partition("upstream _every_server {")[2].partition("}")[0]


def test_no_page_is_allowed_by_default_and_no_path_outside_of_v1() -> None:
    text = configuration(model("small", 8000), model("big", 8001))
    assert "add_header Access-Control" not in text
    assert "location = /rerank" not in text

    text = configuration(model("small", 8000), model("big", 8001), nginx_lb_open_paths=["/rerank"])
    assert location(text, "= /rerank") == location(text, "/v1/")
    assert "Only the API below /v1/, /rerank is served here." in text


def test_every_page_may_ask_where_that_is_wanted() -> None:
    text = configuration(model("small", 8000), nginx_lb_cors_origins=["*"])
    assert "default *;" in text.partition("map $http_origin $cors_origin {")[2].partition("}")[0]


@pytest.mark.parametrize(
    "wrong", ["https://a.org/", "a.org", 'https://a"; b', "*", "https://a.org/path", "ftp://a.org"]
)
def test_an_origin_that_no_browser_sends_is_refused(wrong: str) -> None:
    (said,) = refusals("Debian", "12.13", nginx_lb_cors_origins=["https://b.org", wrong])
    assert said.startswith("nginx_lb_cors_origins: an origin is a scheme and a host")

    for right in ("https://chat.example.org", "http://localhost:3000", "https://[2001:db8::1]:8443"):
        assert refusals("Debian", "12.13", nginx_lb_cors_origins=[right]) == []
    assert refusals("Debian", "12.13", nginx_lb_cors_origins=["*"]) == []


@pytest.mark.parametrize("wrong", ["a b", "a;", "-a", 'a"', "$a", "a\\b"])
def test_the_name_of_an_adapter_that_would_break_the_configuration_is_refused(wrong: str) -> None:
    (said,) = refusals("Debian", "12.13", nginx_lb_models=[model("small", 8000, adapters=["org/A:1", wrong])])
    assert said.startswith("nginx_lb_models: the name of an adapter consists of letters, digits and ._:@/+-")
    assert said.endswith(f"there is {wrong}. Name it so in lora of its model.")

    assert (
        refusals("Debian", "12.13", nginx_lb_models=[model("small", 8000, adapters=["org/A:1", "a.b_c@d+e-f"])]) == []
    )


AFFINITY: dict[str, Any] = {"nginx_lb_balance": "affinity"}


def test_nothing_goes_together_unless_that_is_wanted() -> None:
    text = configuration(model("small", 8000), model("big", 8001))
    assert "affinity" not in text
    assert "$beginning" not in text
    assert "$host $" not in text


def test_affinity_has_its_own_upstream_and_the_least_busy_server_behind_it() -> None:
    more: dict[str, Any] = AFFINITY | {"nginx_lb_affinity_limit": 7, "nginx_lb_affinity_header": "X-My-Chat"}
    text = configuration(model("a.b-c", 8000, 8001), model("away"), **more)

    ring = text.partition("upstream _affinity_a.b-c {")[2].partition("}")[0]
    assert "hash $affinity_key consistent;" in ring
    assert "server 192.0.2.1:8001 max_conns=7 max_fails=3 fail_timeout=1s; # a.b-c-8001\n" in ring
    assert "least_conn;" in text.partition("upstream a.b-c {")[2].partition("}")[0]
    assert "upstream _affinity_away" not in text
    assert "map $http_x_my_chat $affinity_key {" in text
    assert "proxy_pass http://${affinity}a.b-c;" in text.partition("location @a.b-c {")[2].partition("location")[0]
    assert "return 503;" in location(text, "@away")
    known = servers(text)
    assert known["192.0.2.1:8000"] == {"a.b-c", "_affinity_a.b-c", "_every_server"}
    assert render(text, {"192.0.2.1:8000": {"drained": {"by": "operator"}}}).count(" down; # a.b-c-8000") == 3


def test_affinity_needs_the_script_also_of_one_model_and_of_none_nothing() -> None:
    text = configuration(model("small", 8000), **AFFINITY)
    assert "js_content route.byModel;" in location(text, "/v1/")
    assert "client_body_buffer_size 64m;" in text
    text = configuration(**AFFINITY)
    assert "js_content" not in text
    assert "return 503;" in location(text, "/v1/")


def test_a_key_holds_whatever_the_way_to_a_model() -> None:
    """In each place that sends to servers of a model, but for where only those places lead."""
    keys: dict[str, Any] = {"nginx_lb_open": False, "nginx_lb_engine_key": KEY + "0"}
    keys["nginx_lb_keys"] = [{**KEYS[0], "models": ["small"]}]
    hosts: dict[str, Any] = {"nginx_lb_model_domain": "llm.example.org"}
    text = configuration(model("small", 8000), model("big", 8001), **AFFINITY | keys | hosts)
    for place in ("@big", "@big/chained", "= /v1/models"):
        assert "if ($is_foreign) { return 403; }" in text.partition(f" location {place} {{")[2].partition("location")[0]
    assert "error_page 403 =404 @_unknown_model;" in text.partition(" location @big {")[2].partition("location")[0]
    assert "llm.example.org" not in configuration(model("small", 8000), **hosts), "with one model every host is its"


def test_models_have_host_names() -> None:
    text = configuration(model("llama-3.3_b", 8000), model("default"), nginx_lb_model_domain="llm.example.org")
    hosts = text.partition("map $host $model_of_host {")[2].partition("}")[0]
    assert "llama-3-3-b.llm.example.org llama-3.3_b;" in hosts
    assert "default.llm.example.org default;" in hosts


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"nginx_lb_affinity_header": "X Session"}, "there are 'X Session' and 64."),
        ({"nginx_lb_affinity_limit": 0}, "there are 'X-Session-Id' and 0."),
        ({"nginx_lb_model_domain": ".example.org"}, "nginx_lb_model_domain is '.example.org'; it must be a domain"),
        (
            {"nginx_lb_model_domain": "a.org", "nginx_lb_models": [model("a.b"), model("a-b")]},
            "two models would have the same host name, for . and _ become - in it: a-b.a.org, a-b.a.org.",
        ),
    ],
)
def test_what_cannot_be_had_of_affinity_and_host_names_is_refused(wishes: dict[str, Any], said: str) -> None:
    (refusal,) = refusals("Debian", "12.13", **wishes)
    assert said in refusal


KEY = "0123456789abcdef01234567"
KEYS = [{"name": "team", "keys": [KEY]}]


def test_a_front_door_is_closed_until_there_is_a_key_or_somebody_says_otherwise() -> None:
    closed: dict[str, Any] = {"nginx_lb_open": False}
    (said,) = refusals("Debian", "12.13", **closed)
    assert said == (
        "Whoever reaches the front door of lb1 could use every model: it has no key. Set vllm_api_key or nginx_lb_keys "
        "(docs/front-door-keys.md), or nginx_lb_open to true if that is meant."
    )
    assert (ROLE.parents[1] / "docs/front-door-keys.md").is_file()

    assert refusals("Debian", "12.13", **closed, vllm_api_key=KEY) == []
    assert refusals("Debian", "12.13", **closed, vllm_api_key=KEY + "0", nginx_lb_keys=KEYS) == []
    assert refusals("Debian", "12.13", nginx_lb_open=True) == []
    assert refusals("Debian", "12.13", **closed, nginx_lb_listen=["127.0.0.2:80", "[::1]:80"]) == [], "it asks itself"
    assert len(refusals("Debian", "12.13", **closed, nginx_lb_listen=["127.0.0.2:80", "10.0.0.1:80"])) == 1


def test_keys_are_refused_where_engines_have_none_or_everybody_may_come() -> None:
    (said,) = refusals("Debian", "12.13", nginx_lb_open=False, nginx_lb_keys=KEYS)
    assert said.startswith("lb1 has nginx_lb_keys, and the engines have none")

    (said,) = refusals("Debian", "12.13", nginx_lb_keys=KEYS, vllm_api_key=KEY + "0")
    assert said.startswith("nginx_lb_open lets everybody in to lb1, and nginx_lb_keys only those who have one.")


def test_a_key_is_never_told() -> None:
    wrong = {"nginx_lb_open": False, "nginx_lb_keys": [*KEYS, *KEYS, {"name": "short", "keys": ["swordfish"]}]}
    said = " ".join(refusals("Debian", "12.13", **wrong, vllm_api_key=KEY))
    assert "short has a value that is no token" in said
    assert KEY not in said
    assert "swordfish" not in said


ACME: dict[str, Any] = {
    "nginx_lb_tls": "acme",
    "nginx_lb_tls_names": ["llm.example.org"],
    "nginx_lb_tls_acme_email": "ops@example.org",
}
GIVEN: dict[str, Any] = {
    "nginx_lb_tls": "given",
    "nginx_lb_tls_certificate": "-----BEGIN CERTIFICATE-----",
    "nginx_lb_tls_key": "-----BEGIN PRIVATE KEY-----",
}


def test_without_tls_nothing_speaks_of_it() -> None:
    text = configuration(model("small", 8000))
    assert "ssl" not in text
    assert "http2" not in text
    assert " listen 80;" in text.partition("/_malformed;")[0]


@pytest.mark.parametrize(
    ("system", "listens"),
    [
        (("Debian", "12.13"), ["listen 443 ssl http2;"]),
        (("Ubuntu", "24.04"), ["listen 443 ssl http2;"]),
        (("Debian", "13.2"), ["listen 443 ssl;", "http2 on;"]),
        (("Ubuntu", "26.04"), ["listen 443 ssl;", "http2 on;"]),
        (("Ubuntu", "22.04"), ["listen 443 ssl;", "http2 on;"]),
        (("Rocky", "9.6"), ["listen 443 ssl;", "http2 on;"]),
    ],
)
def test_http2_is_said_as_the_nginx_of_the_system_wants_to_hear_it(system: tuple[str, str], listens: list[str]) -> None:
    text = configuration(model("small", 8000), system=system, nginx_lb_tls="self_signed")
    _, plain, models, _ = text.split("    server {\n")
    assert [line.strip() for line in plain.splitlines() if "listen" in line or "http2" in line] == ["listen 80;"]
    assert [line.strip() for line in models.splitlines()[:5] if "listen" in line or "http2" in line] == listens


def test_without_tls_there_is_nothing_but_the_way_to_it() -> None:
    plain = configuration(model("small", 8000), nginx_lb_tls="self_signed").split("    server {\n")[1]
    assert "return 308 https://$host$request_uri;" in location(plain, "/")
    assert "proxy_pass" not in plain
    assert "acme" not in plain

    plain = configuration(model("small", 8000), nginx_lb_tls_listen=["10.0.0.1:8443"], **ACME).split("    server {\n")[
        1
    ]
    assert "return 308 https://$host:8443$request_uri;" in location(plain, "/")
    assert "root /etc/nginx/acme;" in location(plain, "/.well-known/acme-challenge/")

    assert "308" not in configuration(model("small", 8000), nginx_lb_tls="self_signed", nginx_lb_listen=[])


def test_the_health_of_every_address_is_asked() -> None:
    wishes = {"nginx_lb_listen": ["80", "10.0.0.1:81"], "nginx_lb_tls_listen": ["*:443", "10.0.0.1:8443"]}
    plain = ["http://127.0.0.1:80/health", "http://10.0.0.1:81/health"]
    asked = templar("Debian", "12.13", **wishes).resolve_variable_expression("_nginx_lb_health_urls")
    assert list(asked) == plain
    asked = templar("Debian", "12.13", nginx_lb_tls="acme", **wishes)
    secure = ["https://127.0.0.1:443/health", "https://10.0.0.1:8443/health"]
    assert list(asked.resolve_variable_expression("_nginx_lb_health_urls")) == plain + secure


def files(**wishes: Any) -> list[str]:
    """Of the certificate: what the role writes, and what only root reads of that."""
    known = templar("Debian", "12.13", **wishes)
    written = known.resolve_variable_expression("_nginx_lb_tls_files")
    secrets = known.resolve_variable_expression("_nginx_lb_tls_secrets")
    texts = [file["content"] for file in written if "content" in file] + list(secrets.values())
    assert all(text.endswith("-----\n") for text in texts)
    return [*(file["path"] for file in written), *secrets]


def test_the_role_writes_what_the_inventory_has_of_a_certificate() -> None:
    key = "/etc/nginx/tls/key.pem"
    assert files() == files(nginx_lb_tls="self_signed") == []
    assert files(**GIVEN) == ["/etc/nginx/tls/certificate.pem", key, key]
    assert files(**GIVEN | {"nginx_lb_tls_key": "/etc/ssl/own.key"}) == ["/etc/nginx/tls/certificate.pem"]
    assert files(**GIVEN | {"nginx_lb_tls_certificate": "/etc/ssl/own.pem"}) == [key, key]
    on_the_host = GIVEN | {"nginx_lb_tls_certificate": "/etc/ssl/own.pem", "nginx_lb_tls_key": "/etc/ssl/own.key"}
    assert files(**on_the_host) == []
    text = configuration(**on_the_host)
    assert "ssl_certificate /etc/ssl/own.pem;" in text
    assert "ssl_certificate_key /etc/ssl/own.key;" in text


SIGNED = {"nginx_lb_tls": "self_signed"}


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"nginx_lb_tls": "given"}, "nginx_lb_tls_certificate or nginx_lb_tls_key is neither PEM, which begins"),
        (GIVEN | {"nginx_lb_tls_key": "own.key"}, "nginx_lb_tls_certificate or nginx_lb_tls_key is neither PEM"),
        (GIVEN | {"nginx_lb_tls_key": "/tmp/own.key"}, "are /tmp/own.key. NGINX's unit sees neither homes nor"),
        (GIVEN | {"nginx_lb_tls": "none"}, "nginx_lb_tls is 'none', which uses neither. Set nginx_lb_tls to given"),
        (SIGNED | {"nginx_lb_tls_listen": []}, "nginx_lb_tls_listen is empty. Name a port there"),
        (SIGNED | {"nginx_lb_tls_listen": ["10.0.0.1"]}, "begins with its port, or with an address and its port"),
        (SIGNED | {"nginx_lb_tls_listen": ["80"]}, "both have 80. With TLS and without it are two ports"),
        (SIGNED | {"nginx_lb_tls_names": ["a b", "c"]}, "nginx_lb_tls_names: there is a b. Name hosts"),
        (ACME | {"nginx_lb_tls_names": []}, "nginx_lb_tls is 'acme', and nginx_lb_tls_names is []. Name what"),
        (ACME | {"nginx_lb_tls_names": ["a.org", "10.0.0.1"]}, 'nginx_lb_tls_names is ["a.org", "10.0.0.1"].'),
        (ACME | {"nginx_lb_tls_names": ["*.a.org"]}, "which it does not for addresses and wildcards."),
        (ACME | {"nginx_lb_tls_acme_email": ""}, "and nginx_lb_tls_acme_email is ''. Set it to"),
        (ACME | {"nginx_lb_tls_acme_server": "http://a"}, "nginx_lb_tls_acme_server is 'http://a'; it must be"),
        (ACME | {"nginx_lb_listen": []}, "the ACME server asks at port 80. Set it to"),
    ],
)
def test_what_cannot_be_had_of_tls_is_refused(wishes: dict[str, Any], said: str) -> None:
    (refusal,) = refusals("Debian", "12.13", **wishes)
    assert said in refusal


def test_what_can_be_had_of_tls_is_not_refused() -> None:
    on_the_host = GIVEN | {"nginx_lb_tls_certificate": "/etc/ssl/own.pem", "nginx_lb_tls_key": "/etc/ssl/own.key"}
    names = {"nginx_lb_tls_names": ["lb1", "a.example.org", "*.example.org", "10.0.0.5", "2001:db8::5", "::1"]}
    for wishes in (ACME, GIVEN | names, on_the_host, {"nginx_lb_tls": "self_signed"} | names, names):
        assert refusals("Debian", "12.13", **wishes) == []
    open_to_all = {"nginx_lb_open": False, "nginx_lb_listen": ["127.0.0.1:80"], "nginx_lb_tls": "self_signed"}
    assert len(refusals("Debian", "12.13", **open_to_all)) == 1, "it has no key"
