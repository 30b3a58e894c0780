# SPDX-License-Identifier: ISC
"""Multipath TCP (RFC 8684), for which Python 3.11 has no names."""

import socket

IPPROTO_MPTCP = 262
SOL_MPTCP, MPTCP_INFO = 284, 1


def why_not():
    """Why this host has no Multipath TCP; None where it has."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        return f"no Multipath TCP here: {error}"
    return None


def is_multipath(sock):
    """Whether both ends speak Multipath TCP: MPTCP_INFO fails once the connection has fallen back to plain TCP."""
    try:
        sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)
    except OSError:
        return False
    return True
