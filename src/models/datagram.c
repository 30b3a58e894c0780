#include <config.h>

#include "models/datagram.h"

int datagram_open(struct datagram *datagram, struct worker *worker)
{
	*datagram = (struct datagram) { .worker = worker };
	return 0;
}

void datagram_close(struct datagram *datagram)
{
	(void) datagram;
}

int datagram_watch(struct datagram *datagram, const struct ready_ops *ops, struct ready *ready)
{
	datagram->ops = ops;
	datagram->ready = ready;
	return 0;
}

void datagram_unwatch(struct datagram *datagram)
{
	(void) datagram;
}

void datagram_turn(struct datagram *datagram, int fd)
{
	(void) datagram;
	(void) fd;
}

int datagram_run(struct worker *worker)
{
	(void) worker;
	return 0;
}
