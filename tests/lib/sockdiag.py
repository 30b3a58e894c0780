# SPDX-License-Identifier: ISC
"""The daemon's end of a TCP connection, by sock_diag(7): /proc/net/tcp is slow where many connections are in TIME-WAIT."""

import errno
import socket
import struct

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLMSG_ERROR, NLM_F_REQUEST = 4, 20, 2, 1
TCP_LISTEN = 10
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBBBI2s2s16s16sIII")
ANSWER = struct.Struct("=BBBB48sIIIII")  # family, state, timer, retransmits, the addresses, expiry, queues, user, inode


def inode(family, local, remote):
    """The inode of the socket with this local and this remote address; 0 if no process has the socket open: it is in a backlog,
    was closed, or does not exist."""
    def packed(address):
        return address[1].to_bytes(2, "big"), socket.inet_pton(family, address[0])

    (local_port, local_host), (remote_port, remote_host) = packed(local), packed(remote)
    request = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xffffffff, local_port, remote_port, local_host, remote_host,
                           0, 0xffffffff, 0xffffffff)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.send(HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + request)
        data = sock.recv(1 << 16)
    if HEADER.unpack_from(data)[1] == NLMSG_ERROR:
        error = -struct.unpack_from("=i", data, HEADER.size)[0]
        if error == errno.ENOENT:
            return 0
        raise OSError(error, "sock_diag(7)")
    fields = ANSWER.unpack_from(data, HEADER.size)
    return 0 if fields[1] == TCP_LISTEN else fields[-1]  # if there is no connection, the kernel returns the listener
