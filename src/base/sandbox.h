/* SPDX-License-Identifier: ISC */
/* sandbox.h - confine a worker process: no capabilities, no new privileges, and only the system calls of its
 * model
 *
 * A worker process handles data of clients and needs few privileges. sandbox_enter() drops all others, also
 * where a service manager restricts the whole service, because the supervisor needs more than its workers, to
 * bind sockets and to start them. The table in sandbox.c lists the system calls and their uses; echod(8)
 * contains it, and a unit test compares the two.
 *
 * The filter needs libseccomp at build time (--with-libseccomp) and Linux with CONFIG_SECCOMP_FILTER. A
 * system call that is not listed fails with EPERM; a few that no library calls by itself, such as execve(2),
 * end the process with SIGSYS.
 */
#ifndef ECHOD_BASE_SANDBOX_H
#define ECHOD_BASE_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct sock_fprog;

/* Uses of a worker process, each with its system calls. */
enum sandbox_use {
	SANDBOX_ANY = 1,        /* every worker process */
	SANDBOX_STREAMS = 2,    /* serves connections */
	SANDBOX_DATAGRAMS = 4,  /* answers datagrams */
	SANDBOX_SELECT = 8,
	SANDBOX_EPOLL = 16,
	SANDBOX_IO_URING = 32,
	SANDBOX_THREADS = 64,   /* has more than one thread */
	SANDBOX_FORK = 128,     /* has a process for each connection */
};

/* Whether this program and this kernel can filter system calls; if not, `*why` is a sentence that says
 * why. */
bool sandbox_can_filter(const char **why);

/* Make the filter for a set of enum sandbox_use, to be freed with sandbox_filter_free(). Before fork(2): it
 * takes a millisecond. `*filter` is NULL where sandbox_can_filter() is false. Returns 0 or -errno. */
int sandbox_filter_make(struct sock_fprog **filter, unsigned uses);

/* The same for another architecture, AUDIT_ARCH_... of <linux/audit.h>, so that a test can check it. The
 * program has the byte order of that architecture. */
int sandbox_filter_make_for(struct sock_fprog **filter, unsigned uses, uint32_t architecture);

void sandbox_filter_free(struct sock_fprog *filter);

/* Confine the calling process for good: no capabilities, an empty bounding set if it may be emptied,
 * no_new_privs, not dumpable (core(5), ptrace(2)), and `filter` unless it is NULL. While the process has one
 * thread. Returns 0 or -errno. */
int sandbox_enter(const struct sock_fprog *filter);

/* Whether the system call `name` is permitted for any of `uses`, possibly only with some arguments. Without
 * libseccomp: true. */
bool sandbox_permits(const char *name, unsigned uses);

/* Print the table for echod(8): each set of system calls, one paragraph for each use, in mdoc(7). */
void sandbox_print(FILE *out);

/* Builds with fault points: make the system call `name`, which is not permitted for `uses`, or, if `name` is
 * "all", every one that is not permitted and does not end the process, and permitted ones with forbidden
 * arguments. Calls that are carried out nevertheless are logged as errors, then the number of those that were
 * refused. */
void sandbox_try_forbidden(const char *name, unsigned uses);

#endif
