"""TLS: certificates of the host itself and of the inventory, clients without it, and a change under open streams."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from front_door import FrontDoor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STREAM = {"model": "small", "max_tokens": 5000, "stream": True, "prompt": "Hi", "stand_in": {"token_seconds": 0.1}}
VERSIONS = ("1.1", "2")  # of HTTP
ACME = {
    "nginx_lb_tls": "acme",
    "nginx_lb_tls_names": ["llm.example.org"],
    "nginx_lb_tls_acme_email": "ops@example.org",
    "nginx_lb_tls_acme_server": "https://127.0.0.1:14000/dir",
}
PEBBLE = {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/srv/pebble.pem",
    "privateKey": "/srv/pebble.key",
    "httpPort": 80,
    "tlsPort": 443,
    "retryAfter": {"authz": 1, "order": 1},
    "profiles": {"default": {"description": "As of Let's Encrypt", "validityPeriod": 7776000}},
}


def certificate(days: float, *addresses: str) -> tuple[str, str]:
    """One for some addresses that is its own authority, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    begins, ends = now - timedelta(days=9), now + timedelta(days=days)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front door")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address)) for address in addresses])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(begins).not_valid_after(ends).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    hidden = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.sign(key, hashes.SHA256()).public_bytes(pem).decode(), hidden.decode()


@pytest.fixture(scope="module")
def secure(hosts: list[Any], change: Callable[..., str]) -> Iterator[list[FrontDoor]]:
    """Front doors with certificates of the hosts' own, which clients believe; without TLS again in the end."""
    assert not change(nginx_lb_tls="self_signed")
    doors = [FrontDoor(host) for host in hosts]
    for door in doors:
        door.port = 443
        door.tls = ssl.create_default_context(cadata=door.host.file("/etc/nginx/tls/certificate.pem").content_string)
        door.tls.check_hostname = False  # Molecule's inventory has no address of a host
    yield doors
    assert not change()
    assert not any(door.host.file("/etc/nginx/tls/key.pem").exists for door in doors)


def hello(door: FrontDoor, *options: str) -> str:
    """What a client hears that wants a connection of some kind, and that would have it without any security."""
    words = ["openssl", "s_client", "-connect", f"{door.address}:{door.port}", *options, "-cipher", "ALL:@SECLEVEL=0"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def begin(door: FrontDoor) -> None:
    """A stream of each version of HTTP, which takes minutes."""
    for version in VERSIONS:
        unit = f"systemd-run --quiet --unit=stream-{version} --property=StandardOutput=truncate:/tmp/stream-{version}"
        curl = f"curl --silent --fail --no-buffer --insecure --http{version} --data %s https://{door.address}/v1/completions"
        door.host.check_output(f"{unit} {curl}", json.dumps(STREAM))


def go_on(door: FrontDoor) -> bool:
    """Whether tokens of all of them still come; they are ended then."""

    def tokens() -> list[int]:
        return [int(door.host.check_output(f"grep -c ^data: /tmp/stream-{version}")) for version in VERSIONS]

    before, deadline, more = tokens(), time.monotonic() + 5, False
    while not more and time.monotonic() < deadline:
        more = all(then < now for then, now in zip(before, tokens(), strict=True))
    door.host.check_output("systemctl stop " + " ".join(f"stream-{version}" for version in VERSIONS))
    return more


def put(host: Any, path: str, text: str) -> None:
    host.check_output(f"printf %%s %s > {path}", text)


def test_a_host_has_a_certificate_of_its_own(secure: list[FrontDoor]) -> None:
    for door in secure:
        assert door.get("/health").body == b"ok\n"
        assert door.post(model="small").status == 200
        modes = {name: door.host.file(f"/etc/nginx/tls/{name}.pem").mode for name in ("certificate", "key")}
        assert modes == {"certificate": 0o644, "key": 0o600}


def test_versions_before_1_2_are_refused_and_http2_is_offered(secure: list[FrontDoor]) -> None:
    for door in secure:
        for old in ("-tls1", "-tls1_1"):
            assert "alert protocol version" in hello(door, old)
        for new in ("-tls1_2", "-tls1_3"):
            assert "BEGIN CERTIFICATE" in hello(door, new)
        assert "ALPN protocol: h2" in hello(door, "-alpn", "h2,http/1.1")


def test_without_tls_clients_are_sent_to_it(secure: list[FrontDoor]) -> None:
    short = json.dumps({"model": "small", "max_tokens": 1, "prompt": "Hi"})
    for door in secure:
        plain = FrontDoor(door.host)
        answer = plain.post("/v1/completions?a=b", model="small")
        assert (answer.status, answer.headers["location"]) == (308, f"https://{door.address}/v1/completions?a=b")
        assert plain.get("/health").body == b"ok\n"
        follow = f"curl --silent --insecure --location --data %s http://{door.address}/v1/completions"
        assert json.loads(door.host.check_output(follow, short))["choices"]


def test_another_certificate_cuts_no_stream_and_a_bad_one_is_refused(
    secure: list[FrontDoor], change: Callable[..., str], converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    addresses = [door.address for door in secure]
    text, key = certificate(30, *addresses)
    good = {"nginx_lb_tls": "given", "nginx_lb_tls_certificate": text, "nginx_lb_tls_key": key}
    good |= {"nginx_lb_tls_names": addresses}
    masters = [door.host.check_output("cat /run/nginx.pid") for door in secure]

    refusal = " ".join(change(**good | {"nginx_lb_tls_certificate": certificate(-1, *addresses)[0]}).split())
    assert "The certificate has expired, on" in refusal
    assert "The key does not belong to the first certificate." in refusal
    assert key.splitlines()[1] not in refusal

    for door in secure:
        begin(door)
    assert not change(**good)
    for door in secure:
        door.tls = ssl.create_default_context(cadata=text)
        assert door.post(model="small").status == 200, "the new one is shown, which is for the address"
        assert go_on(door)
    assert [door.host.check_output("cat /run/nginx.pid") for door in secure] == masters

    again = converge("--check", "--diff", "--extra-vars", json.dumps(good))
    assert again.stdout.count("changed=0") == len(secure), again.stdout


def test_an_acme_server_signs_one_whose_renewal_cuts_no_stream(
    secure: list[FrontDoor], change: Callable[..., str]
) -> None:
    for door in secure:
        text, key = certificate(30, "127.0.0.1")
        for name, content in {"pem": text, "key": key, "json": json.dumps({"pebble": PEBBLE})}.items():
            put(door.host, f"/srv/pebble.{name}", content)
        door.host.check_output(
            "cp /srv/pebble.pem /usr/local/share/ca-certificates/pebble.crt && update-ca-certificates"
        )
        door.host.check_output("echo 127.0.0.1 llm.example.org >> /etc/hosts")
        pebble = "systemd-run --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0"
        door.host.check_output(f"{pebble} /srv/pebble-linux-amd64/pebble -config /srv/pebble.json")

    assert not change(**ACME)

    def renew(door: FrontDoor) -> bool:
        before = door.host.file(path).content_string
        door.host.check_output("certbot renew --force-renewal --non-interactive --no-random-sleep-on-renew")
        return bool(door.host.file(path).content_string != before)

    path = "/etc/nginx/tls/certificate.pem"
    for door in secure:
        assert "Pebble Intermediate CA" in hello(door)
        assert door.host.service("certbot.timer").is_enabled
        begin(door)
    with ThreadPoolExecutor(len(secure)) as pool:
        assert all(pool.map(renew, secure))
    for door in secure:
        assert "Pebble Intermediate CA" in hello(door)
        assert go_on(door)
