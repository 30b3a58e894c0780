/* datagram.h - the datagram sockets of a worker
 *
 * Belongs to one worker and its thread. A body with an event loop has its sockets watched by
 * its own back-end (datagram_watch()) and calls datagram_turn(); bodies that block in a
 * connection leave datagrams to one more worker of the crew, which runs datagram_run().
 */
#ifndef ECHOD_MODELS_DATAGRAM_H
#define ECHOD_MODELS_DATAGRAM_H

#include "models/watch.h"
#include "models/worker.h"

struct datagram {
	struct worker *worker;
	const struct ready_ops *ops;
	struct ready *ready;
	struct watch *watches; /* one for each datagram listener */
	size_t count;
};

/* Prepare for the worker's datagram listeners; there may be none. 0 or -errno. */
int datagram_open(struct datagram *datagram, struct worker *worker);
void datagram_close(struct datagram *datagram);

/* Have every datagram socket watched as WATCH_DATAGRAM. 0 or -errno. */
int datagram_watch(struct datagram *datagram, const struct ready_ops *ops, struct ready *ready);

/* Stop watching. */
void datagram_unwatch(struct datagram *datagram);

/* `fd` is readable: take one batch, answer what may be answered. */
void datagram_turn(struct datagram *datagram, int fd);

/* A worker that does nothing else: run() of the extra worker of the blocking models. */
int datagram_run(struct worker *worker);

#endif
