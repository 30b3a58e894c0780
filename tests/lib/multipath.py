# SPDX-License-Identifier: ISC
"""Multipath TCP (RFC 8684), for which Python 3.11 has no names."""

import socket

IPPROTO_MPTCP = 262
SOL_MPTCP, MPTCP_INFO = 284, 1


def why_not():
    """The reason why this host has no Multipath TCP, or None."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        return f"no Multipath TCP here: {error}"
    return None


def is_multipath(sock):
    """Whether the connection uses Multipath TCP: MPTCP_INFO fails after a fallback to plain TCP."""
    try:
        sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)
    except OSError:
        return False
    return True
