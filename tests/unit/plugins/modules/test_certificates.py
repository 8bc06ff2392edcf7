"""The modules that judge certificates and have them made: certificate_check, self_signed, acme_certificate."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.certificate import first_of
from ansible_collections.gpuhosts.vllm.plugins.modules import acme_certificate, certificate_check, self_signed
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.unit.plugins.conftest import RunModule

WEAK = 1024
DAY = timedelta(days=1)
NAMES = ["llm.example.org", "*.models.example.org", "10.0.0.5", "2001:db8::5"]
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KEYS: dict[str, Callable[[], Key]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "weak": lambda: rsa.generate_private_key(65537, WEAK),
}


def written(key: Key, password: bytes = b"") -> str:
    """A key in PEM."""
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode()


def signed(key: Key, names: list[str] = NAMES, begins: timedelta = -DAY, ends: timedelta = DAY, by: str = "CA") -> str:
    """A certificate in PEM."""
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("front door", by))
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now + begins).not_valid_after(now + ends)
    general: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    if general:
        made = made.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def mistakes(run_module: RunModule) -> Callable[..., str]:
    """What certificate_check says."""

    def check(certificate: str, key: str, names: list[str] | None = None) -> str:
        result = run_module(certificate_check, certificate=certificate, key=key, names=names or [])
        assert not result["changed"]
        return " ".join(result["mistakes"])

    return check


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_certificate_with_its_key_will_do(mistakes: Callable[..., str], tmp_path: Path, kind: str) -> None:
    key = KEYS[kind]()
    asked = ["LLM.example.org", "a.models.example.org", "10.0.0.5", "2001:db8::5"]
    assert mistakes(signed(key), written(key), asked) == ""

    chain = tmp_path / "chain.pem"
    chain.write_text(f"of the front door\n{signed(key)}of the authority\n{signed(KEYS['ec'](), ends=-DAY / 2)}")
    (tmp_path / "key.pem").write_text(written(key))
    assert mistakes(str(chain), str(tmp_path / "key.pem"), asked) == "", "what comes after it is not the front door's"


@pytest.mark.parametrize(("mine", "other"), [("ec", "ec"), ("rsa", "rsa"), ("ec", "rsa"), ("rsa", "ec")])
def test_a_key_of_another_one_is_refused(mistakes: Callable[..., str], mine: str, other: str) -> None:
    key = KEYS[other]()
    said = mistakes(signed(KEYS[mine]()), written(key))
    assert said.startswith("The key does not belong to the first certificate. ")
    assert not set(written(key).splitlines()) & set(said.splitlines())


def test_what_is_not_valid_today_is_refused(mistakes: Callable[..., str]) -> None:
    key = KEYS["ec"]()
    day = (datetime.now(UTC) - DAY / 2).strftime("%Y-%m-%d")
    assert mistakes(signed(key, ends=-DAY / 2), written(key)).startswith(f"The certificate has expired, on {day}. ")
    assert mistakes(signed(key, begins=DAY / 2), written(key)).startswith("The certificate is valid from ")


def test_a_name_that_is_not_in_it_is_refused(mistakes: Callable[..., str]) -> None:
    key = KEYS["ec"]()
    said = mistakes(signed(key), written(key), ["example.org", "a.b.models.example.org", "llm.example.org", "10.0.0.6"])
    assert said == (
        "The certificate is not for example.org, a.b.models.example.org, 10.0.0.6; "
        "it is for *.models.example.org, 10.0.0.5, 2001:db8::5, llm.example.org."
    )
    assert mistakes(signed(key, names=[]), written(key), ["a"]) == "The certificate is not for a; it is for no name."


def test_what_is_no_certificate_and_no_key_is_refused(mistakes: Callable[..., str], tmp_path: Path) -> None:
    key = KEYS["ec"]()
    assert mistakes("-----BEGIN X", written(key)) == "This is no certificate: it has no certificate in PEM."
    broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert mistakes(broken, written(key)) == "This is no certificate: its first certificate is damaged."
    assert mistakes(signed(key), "-----BEGIN X").startswith("The key is none in PEM, or has a password")
    assert mistakes(signed(key), written(key, b"swordfish")).startswith("The key is none in PEM, or has a password")
    weak = KEYS["weak"]()
    assert mistakes(signed(weak), written(weak)).startswith("OpenSSL refuses the certificate: EE_KEY_TOO_SMALL. ")
    assert mistakes(str(tmp_path / "none"), written(key)).startswith(f"{tmp_path}/none cannot be read: No such file")


@pytest.fixture
def make(run_module: RunModule, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run self_signed."""
    places = {"certificate": str(tmp_path / "tls/certificate.pem"), "key": str(tmp_path / "tls/key.pem")}

    def run(*names: str, **arguments: Any) -> dict[str, Any]:
        return run_module(self_signed, names=list(names), **places, **arguments)

    return run


@pytest.fixture(autouse=True)
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root gives files to root."""
    monkeypatch.setattr("os.chown", lambda *_: None)


def test_a_host_signs_its_own_and_keeps_it(
    make: Callable[..., dict[str, Any]], mistakes: Callable[..., str], tmp_path: Path
) -> None:
    certificate, key = tmp_path / "tls/certificate.pem", tmp_path / "tls/key.pem"
    assert make("lb1", "10.0.0.5", "2001:db8::5", _ansible_check_mode=True)["changed"]
    assert not certificate.exists()

    result = make("lb1", "10.0.0.5", "2001:db8::5")

    assert result["changed"]
    assert "PRIVATE" not in str(result)
    assert (certificate.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o644, 0o600)
    assert mistakes(str(certificate), str(key), ["lb1", "10.0.0.5", "2001:db8::5"]) == ""
    own = first_of(certificate.read_text())
    assert own.self_signed
    assert 364 < (own.ends - time.time()) / 86400 <= 365
    ssl.create_default_context(cafile=str(certificate))
    for check in (True, False):
        assert not make("10.0.0.5", "LB1", "2001:db8::5", _ansible_check_mode=check)["changed"]

    before = certificate.read_text()
    assert make("lb1")["changed"], "for other names"
    assert certificate.read_text() != before


def test_it_makes_a_new_one_in_the_last_month_or_without_its_key(
    make: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    assert make("lb1", days=29)["changed"]
    assert make("lb1", days=29)["changed"]
    assert make("lb1", days=31)["changed"]
    assert not make("lb1", days=31)["changed"]
    (tmp_path / "tls/key.pem").write_text(written(KEYS["ec"]()))
    assert make("lb1", days=31)["changed"]


def test_one_that_somebody_else_has_signed_stays_only_where_that_is_wanted(
    make: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    key = KEYS["ec"]()
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/certificate.pem").write_text(signed(key))
    (tmp_path / "tls/key.pem").write_text(written(key))
    assert not make("lb1", keep_any=True)["changed"]
    assert make("lb1")["changed"]

    (tmp_path / "tls/certificate.pem").write_text(signed(key, ends=-DAY / 2))
    (tmp_path / "tls/key.pem").write_text(written(key))
    assert make("lb1", keep_any=True)["changed"], "NGINX would show an expired one"


def test_names_that_openssl_does_not_take_are_told(make: Callable[..., dict[str, Any]]) -> None:
    result = make("10.0.0.5.6,IP:1")
    assert result["failed"]
    assert result["msg"].startswith("OpenSSL makes no certificate for 10.0.0.5.6,IP:1: ")


CERTBOT = """#!/bin/sh
echo "$@" >> {place}/asked
test ! -e {place}/refused || {{ echo "unauthorized: 404"; exit 1; }}
mkdir -p {place}/live/door {place}/renewal
cp {place}/new.pem {place}/live/door/fullchain.pem
echo "server = https://acme.example.org/directory" > {place}/renewal/door.conf
RENEWED_LINEAGE={place}/live/door {place}/hook
"""


@pytest.fixture
def acme(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run acme_certificate with a stand-in for certbot."""
    hook = f"#!/bin/sh\ncp $RENEWED_LINEAGE/fullchain.pem {tmp_path}/shown.pem\n"
    for name, text in (("certbot", CERTBOT.format(place=tmp_path)), ("hook", hook)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(acme_certificate, "PLACE", tmp_path)
    (tmp_path / "new.pem").write_text(signed(KEYS["ec"](), names=["a.example.org"]))
    given = {
        "name": "door",
        "names": ["a.example.org"],
        "email": "ops@example.org",
        "server": "https://acme.example.org/directory",
        "webroot": str(tmp_path / "webroot"),
        "certificate": str(tmp_path / "shown.pem"),
        "hook": [str(tmp_path / "hook")],
    }
    return lambda **arguments: run_module(acme_certificate, **given | arguments)


def asked(place: Path) -> list[str]:
    """What certbot was told, run by run."""
    path = place / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_a_certificate_is_asked_for_once(acme: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert acme(_ansible_check_mode=True)["changed"]
    assert asked(tmp_path) == []

    assert acme()["changed"]
    for check in (True, False):
        assert not acme(_ansible_check_mode=check)["changed"]
    (told,) = asked(tmp_path)
    assert told.startswith(
        "certonly --non-interactive --agree-tos --no-eff-email --email ops@example.org --server https://acme"
    )
    assert "--domain a.example.org --renew-with-new-domains --keep-until-expiring" in told
    assert (tmp_path / "webroot").is_dir()

    (tmp_path / "shown.pem").unlink()
    assert acme()["changed"]
    assert (tmp_path / "shown.pem").exists(), "what certbot has is shown again, without asking for another one"
    assert len(asked(tmp_path)) == 1


def test_other_names_and_another_server_take_another_one(acme: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    acme()
    (tmp_path / "new.pem").write_text(signed(KEYS["ec"](), names=["a.example.org", "b.example.org"]))
    assert acme(names=["b.example.org", "A.example.org"])["changed"]
    assert asked(tmp_path)[-1].endswith(" --keep-until-expiring")
    assert not acme(names=["a.example.org", "b.example.org"])["changed"]

    assert acme(server="https://other.example.org/directory")["changed"]
    assert asked(tmp_path)[-1].endswith(" --force-renewal")


def test_a_refusal_says_what_certbot_said(acme: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "refused").touch()
    assert acme()["msg"] == (
        "https://acme.example.org/directory has signed no certificate for a.example.org: unauthorized: 404"
    )
