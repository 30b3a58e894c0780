/* load_udp.c - the load engine for datagrams */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "client/worker.h"

static int udp_probe(char *why, size_t size)
{
	snprintf(why, size, "--load over UDP is not written yet");
	return -ENOSYS;
}

static int udp_run(struct worker *worker)
{
	(void) worker;
	return -ENOSYS;
}

const struct engine engine_udp = { .name = "epoll", .probe = udp_probe, .run = udp_run };
