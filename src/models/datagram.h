/* datagram.h - the datagram sockets of a worker
 *
 * Belongs to one worker and its thread. A body with an event loop has its sockets watched by
 * its own back-end (datagram_watch()) and calls datagram_turn(); bodies that block in a
 * connection leave datagrams to one more worker of the crew, which runs datagram_run().
 * The sockets are shared with the other workers and with successive crews.
 */
#ifndef ECHOD_MODELS_DATAGRAM_H
#define ECHOD_MODELS_DATAGRAM_H

#include "echo/dgram.h"
#include "models/watch.h"
#include "models/worker.h"

struct datagram_batch;

struct datagram {
	struct worker *worker;
	const struct ready_ops *ops;
	struct ready *ready;
	struct watch *watches; /* one for each datagram listener; fd, kind and interest set by datagram_open() */
	size_t count;
	struct addr *own;      /* what they are bound to, in the same order */
	struct dgram_rules rules;
	struct datagram_batch *batch; /* about 2 MiB, of which only what is used costs memory; NULL without listeners */
};

/* Prepare for the worker's datagram listeners; there may be none. 0 or -errno, after which
 * datagram_close() is still right. */
int datagram_open(struct datagram *datagram, struct worker *worker);
void datagram_close(struct datagram *datagram);

/* Have every datagram socket watched as WATCH_OTHER. 0 or -errno. */
int datagram_watch(struct datagram *datagram, const struct ready_ops *ops, struct ready *ready);

/* Stop watching. */
void datagram_unwatch(struct datagram *datagram);

/* Nothing is watched any more: take what is waiting on every socket, as datagram_turn() does. The
 * wake-up for it may have come to this worker alone (EPOLLEXCLUSIVE in epoll_ctl(2)), and then
 * no other would look before the next datagram comes. */
void datagram_finish(struct datagram *datagram);

/* `fd` is readable: take some batches, answer what may be answered. Never blocks; what cannot
 * be sent at once is dropped and counted. More may be waiting afterwards. */
void datagram_turn(struct datagram *datagram, int fd);

/* A worker that does nothing else: run() of the extra worker of the blocking models. */
int datagram_run(struct worker *worker);

#endif
