"""OpenPGP certificates, as GnuPG writes them. The fingerprints are those that GnuPG tells."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.openpgp import armored, certificates, holds

FILES = Path(__file__).parents[3] / "fixtures/keys"
ED25519, RSA = "A953E7275C1F046814181AD14A5A4FF0C39F32FE", "AD7F37F8EEB29DECB696FD8CEBB8BAF619F9FBF4"
TWO = (FILES / "two.asc").read_bytes()  # in one block
ONE = (FILES / "one.asc").read_bytes()  # the first of them


def binary(armor: bytes) -> bytes:
    lines = armor.decode().splitlines()
    return base64.b64decode("".join(lines[lines.index("") + 1 : -2]))


@pytest.mark.parametrize(
    "content",
    [
        TWO,
        binary(TWO),
        ONE + armored(certificates(TWO)[RSA]).encode(),
        TWO.replace(b"\n", b"\r\n"),
        b"# keys\n\n" + TWO,
    ],
    ids=["armored", "binary", "two blocks", "line ends of others", "words before it"],
)
def test_a_file_is_told_by_its_certificates(content: bytes) -> None:
    assert list(certificates(content)) == [ED25519, RSA]
    assert b"".join(certificates(content).values()) == binary(TWO)


def test_one_of_them_is_written_as_gnupg_writes_it() -> None:
    assert armored(certificates(TWO)[ED25519]).encode() == ONE


def test_whether_a_file_holds_one_certificate_and_no_other() -> None:
    assert holds(ONE, ED25519)
    assert holds(ONE, "A953 E727 5C1F 0468 1418  1AD1 4A5A 4FF0 C39F 32FE")
    assert not holds(TWO, ED25519)
    assert not holds(ONE, RSA)
    assert not holds(b"", ED25519)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", binary(TWO)[:-1], binary(TWO)[1:], b"\xc6\xff\x00", ONE.replace(b"m", b"!", 1), b"\x99"]
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigFileError, match="no file of OpenPGP keys"):
        certificates(content)
