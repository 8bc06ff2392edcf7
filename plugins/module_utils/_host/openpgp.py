"""OpenPGP certificates, to tell which keys a file holds; pure, private to the collection.

Nothing is verified here: a fingerprint says which key it is, and apt and rpm do the rest with it (RFC 9580). It is not
left to gpg, which no host has for sure: a managed host needs Python and nothing else beforehand.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from .._errors import ConfigFileError

__all__ = ["armored", "certificates", "holds", "plain"]

# Headers, an empty line, the text, its sum.
_BLOCK = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*\s*\r?\n(.*?)(?:\r?\n=[\w+/]{4})?\s*-----END PGP",
    re.DOTALL,
)
_PUBLIC_KEY = 6  # the packet that a certificate begins with
_WIDTH = 64


def certificates(content: bytes) -> dict[str, bytes]:
    """The certificates of a file, armored or not, by their fingerprints; raises ConfigFileError for what is none."""
    blocks = [block[1] for block in _BLOCK.finditer(content)]
    try:
        binary = b"".join(base64.b64decode(b"".join(block.split()), validate=True) for block in blocks) or content
        found: dict[str, bytes] = {}
        name = ""
        for tag, body, packet in _packets(binary):
            if tag == _PUBLIC_KEY:
                name = _fingerprint(body)
            found[name] = found.get(name, b"") + packet
    except (IndexError, ValueError, binascii.Error) as error:
        raise ConfigFileError(f"this is no file of OpenPGP keys: {error}") from error
    if not found or "" in found:
        raise ConfigFileError("this is no file of OpenPGP keys")
    return found


def holds(content: bytes, fingerprint: str) -> bool:
    """Whether a file has the certificate with this fingerprint, and no other."""
    try:
        return list(certificates(content)) == [plain(fingerprint)]
    except ConfigFileError:
        return False


def plain(fingerprint: str) -> str:
    """A fingerprint as it is compared, of one that people may have read."""
    return fingerprint.replace(" ", "").upper()


def armored(certificate: bytes) -> str:
    """A certificate as text, as apt and rpm read it."""
    text = base64.b64encode(certificate).decode()
    lines = [text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)]
    sum_of_all = base64.b64encode(_crc24(certificate).to_bytes(3, "big")).decode()
    block = "PGP PUBLIC KEY BLOCK-----"
    return "\n".join([f"-----BEGIN {block}", "", *lines, f"={sum_of_all}", f"-----END {block}", ""])


def _packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, body, and the packet with its header."""
    place = 0
    while place < len(data):
        start, first = place, data[place]
        if not first & 0x80:
            raise ValueError("a packet begins with an impossible byte")
        if first & 0x40:
            tag, length, place = first & 0x3F, *_new_length(data, place + 1)
        else:
            size = {0: 1, 1: 2, 2: 4}.get(first & 3, 0)
            tag, place = first >> 2 & 0x0F, place + 1 + size
            length = int.from_bytes(data[place - size : place], "big") if size else len(data) - place
        body = data[place : place + length]
        if len(body) < length:
            raise ValueError("it is cut off")
        place += length
        yield tag, body, data[start:place]


def _new_length(data: bytes, place: int) -> tuple[int, int]:
    """Length of a body in the newer format, and where it begins."""
    first = data[place]
    if first < 192:
        return first, place + 1
    if first < 224:
        return ((first - 192) << 8) + data[place + 1] + 192, place + 2
    if first < 255:
        raise ValueError("a packet comes in parts")
    return int.from_bytes(data[place + 1 : place + 5], "big"), place + 5


def _fingerprint(body: bytes) -> str:
    """Of a public key, in capitals."""
    if body[0] == 4:
        # The standard's own choice; hosts in FIPS mode refuse it for anything that is said to be for security.
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
        return digest.hexdigest().upper()
    if body[0] == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError(f"a key of version {body[0]}")


def _crc24(data: bytes) -> int:
    value = 0xB704CE
    for byte in data:
        value ^= byte << 16
        for _ in range(8):
            value = value << 1 ^ (0x1864CFB if value & 0x800000 else 0)
    return value & 0xFFFFFF
