/* SPDX-License-Identifier: ISC */
/* epoll_base.h - event loop that the load engines for streams and datagrams share
 *
 * Level-triggered epoll(7); EPOLLOUT is requested only while a send is incomplete. Runs in the thread of
 * the worker.
 */
#ifndef ECHOD_CLIENT_EPOLL_BASE_H
#define ECHOD_CLIENT_EPOLL_BASE_H

#include "client/load/worker.h"

/* The first member of an engine's own struct, to which worker->engine points. */
struct epoll_base {
	int fd;
	void (*kick)(struct load_worker *worker, struct load_conn *conn); /* see load_worker_turn() */
	void (*event)(struct load_worker *worker, struct load_conn *conn, uint32_t events);
	uint64_t (*timer)(
		struct load_worker *worker); /* called in each turn; returns its next time. May be NULL. */
};

/* Create the epoll set with the wake-up descriptor and all open connections, and loop until
 * LOAD_PHASE_OVER. The caller has set the functions of `base` and worker->engine. Returns 0 or -errno. */
int epoll_base_run(struct load_worker *worker, struct epoll_base *base);

/* Add the connection to the set (`how` is EPOLL_CTL_ADD), or change whether it waits for EPOLLOUT, too
 * (EPOLL_CTL_MOD). Returns 0 or -errno. */
int epoll_base_watch(struct load_worker *worker, struct load_conn *conn, int how, bool out);

#endif
