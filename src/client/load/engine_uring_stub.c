/* load_uring_stub.c - stands in for load_uring.c in a build without liburing */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "client/load/worker.h"

static int stub_probe(char *why, size_t size)
{
	snprintf(why, size, "echoc was built without liburing");
	return -ENOSYS;
}

static int stub_run(struct load_worker *worker)
{
	(void) worker;
	return -ENOSYS;
}

const struct load_engine engine_uring = { .name = "io_uring", .probe = stub_probe, .run = stub_run };
