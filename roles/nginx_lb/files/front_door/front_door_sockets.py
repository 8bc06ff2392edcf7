"""Ends TCP connections of this host to a server, so that NGINX learns at once that nothing comes from there any more.

The kernel does it (``SOCK_DESTROY`` of sock_diag(7), CONFIG_INET_DIAG_DESTROY); NGINX then sees an error where it would
have waited.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

__all__ = ["end_connections"]

_NETLINK_SOCK_DIAG, _DUMP, _DESTROY = 4, 20, 21  # linux/netlink.h, linux/sock_diag.h
_REQUEST, _ACKNOWLEDGE, _WHOLE = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ASK = struct.Struct("=BBBBI")  # inet_diag_req_v2 before its address
_SOCKET = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg; the 48 bytes tell a socket from all others
_ESTABLISHED_OR_CONNECTING = 1 << 1 | 1 << 2


def end_connections(address: str, port: int, uid: int) -> int:
    """End those of one user to a server; how many there were.

    :raises OSError: The kernel cannot do it, or this process may not.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(2)
        wanted = struct.pack("!HH", 0, port) + bytes(44)
        ask = _ASK.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ESTABLISHED_OR_CONNECTING)
        _send(netlink, _DUMP, _REQUEST | _WHOLE, ask + wanted)
        there = socket.inet_aton(address)
        found = [one for one, whose in _sockets(netlink) if whose == uid and one[20:24] == there]
        for one in found:
            _send(netlink, _DESTROY, _REQUEST | _ACKNOWLEDGE, ask + one)
            _acknowledged(netlink)
    return len(found)


def _send(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)


def _messages(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """What one datagram has, by kind."""
    data = netlink.recv(1 << 16)
    while data:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _sockets(netlink: socket.socket) -> Iterator[tuple[bytes, int]]:
    """Every socket of the answer and its user."""
    while True:
        for kind, body in _messages(netlink):
            if kind == _DONE:
                return
            if kind == _ERROR:
                _raise(body)
            told = _SOCKET.unpack_from(body)
            yield told[4], told[8]


def _acknowledged(netlink: socket.socket) -> None:
    for kind, body in _messages(netlink):
        if kind == _ERROR:
            _raise(body)


def _raise(body: bytes) -> None:
    (code,) = struct.unpack_from("=i", body)
    if code and -code != 2:  # ENOENT: it has ended by itself
        raise OSError(-code, "the kernel does not end connections (CONFIG_INET_DIAG_DESTROY)")
