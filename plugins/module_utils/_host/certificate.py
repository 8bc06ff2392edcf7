"""Certificates that a service of the host shows: what they say, and what is wrong with them; private to the collection.

Python's standard library reads none, but for OpenSSL's check that a key belongs to one.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from ipaddress import ip_address

__all__ = ["Certificate", "first_of", "is_ours", "mistakes"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _VERSION, _EXTENSIONS = 0x17, 0xA0, 0xA3
_DNS_NAME, _ADDRESS = 0x82, 0x87
_ALTERNATIVE_NAMES = b"\x55\x1d\x11"  # 2.5.29.17


@dataclass(frozen=True)
class Certificate:
    """What a certificate says."""

    names: frozenset[str]  # DNS names in small letters, and addresses
    begins: float  # seconds since 1970
    ends: float
    self_signed: bool

    def covers(self, name: str) -> bool:
        """Whether clients take it for that of a name, or of an address."""
        plain = name.lower()
        return plain in self.names or f"*.{plain.partition('.')[2]}" in self.names


def first_of(pem: str) -> Certificate:
    """The first certificate of a file, which is the one that a service shows as its own.

    :raises ValueError: There is none.
    """
    found = _PEM.search(pem)
    if not found:
        raise ValueError("it has no certificate in PEM")
    try:
        return _read(base64.b64decode(found[1]))
    except (IndexError, KeyError, ValueError, binascii.Error) as error:
        raise ValueError("its first certificate is damaged") from error


def mistakes(certificate: str, key: str, names: Iterable[str], now: float) -> list[str]:
    """Why a service cannot show this certificate, both in PEM, as sentences for people; none of them has the key."""
    try:
        own = first_of(certificate)
    except ValueError as error:
        return [f"This is no certificate: {error}."]
    found = []
    if own.ends <= now:
        found.append(f"The certificate has expired, on {_day(own.ends)}. Put a new one there.")
    if own.begins > now:
        found.append(f"The certificate is valid from {_day(own.begins)} on. Put one there that is valid today.")
    missing = [name for name in names if not own.covers(name)]
    if missing:
        found.append(
            f"The certificate is not for {', '.join(missing)}; it is for {', '.join(sorted(own.names)) or 'no name'}."
        )
    found += filter(None, [_refusal(certificate, key)])
    return found


def is_ours(certificate: str, names: Iterable[str], until: float) -> bool:
    """Whether this is a self-signed one for exactly these names that is valid until then."""
    try:
        own = first_of(certificate)
    except ValueError:
        return False
    return own.self_signed and own.ends > until and own.names == {name.lower() for name in names}


def _refusal(certificate: str, key: str) -> str:
    """Why OpenSSL does not take the two together, or ""; the key never lies on a disk."""
    with os.fdopen(os.memfd_create("certificate"), "w") as memory:
        memory.write(f"{certificate}\n{key}\n")
        memory.flush()
        try:
            # Without a password of ours, OpenSSL would ask for that of a key on a terminal.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}", password=lambda: "")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or ""
            if reason.endswith(("MISMATCH", "ASSIGNED")):  # another key, or one of another kind
                return (
                    "The key does not belong to the first certificate. Put the front door's own certificate first, "
                    "those between it and its authority after it, and its own key beside it."
                )
            if "KEY_TOO_SMALL" in reason or "MD_TOO_WEAK" in reason:
                return f"OpenSSL refuses the certificate: {reason}. Have a new one made with a longer key and SHA-256."
            return "The key is none in PEM, or has a password, which nobody could type. Put one there without."
    return ""


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def _read(der: bytes) -> Certificate:
    """Read one (RFC 5280, section 4.1).

    Certificate = SEQUENCE {tbsCertificate SEQUENCE {[0] version?, serial, signature, issuer, validity, subject, key,
    ..., [3] extensions?}, ...}
    """
    ((_, certificate),) = _elements(der)
    (_, to_be_signed), *_ = _elements(certificate)
    _, _, (_, issuer), (_, validity), (_, subject), *rest = [
        one for one in _elements(to_be_signed) if one[0] != _VERSION
    ]
    begins, ends = (_time(*one) for one in _elements(validity))
    extensions = [content for tag, content in rest if tag == _EXTENSIONS]
    return Certificate(frozenset(_names(extensions)), begins, ends, issuer == subject)


def _names(extensions: list[bytes]) -> Iterator[str]:
    for listed in extensions:
        ((_, entries),) = _elements(listed)
        for _, entry in _elements(entries):
            (_, kind), *_, (_, value) = _elements(entry)
            if kind == _ALTERNATIVE_NAMES:
                ((_, names),) = _elements(value)
                for tag, name in _elements(names):
                    if tag == _DNS_NAME:
                        yield name.decode("ascii").lower()
                    if tag == _ADDRESS:
                        yield str(ip_address(name))


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of what follows one another in DER.

    The metrics of a host (roles/exporters) read it likewise: that program stands alone and imports nothing of this.
    """
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(der[at : at + octets], "big")
            at += octets
        if at + length > len(der):
            raise ValueError("it ends too early")
        yield tag, der[at : at + length]
        at += length
