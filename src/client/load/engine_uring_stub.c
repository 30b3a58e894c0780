/* SPDX-License-Identifier: ISC */
/* engine_uring_stub.c - replaces engine_uring.c in a build without liburing */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "client/load/worker.h"

static int engine_uring_probe(char *why, size_t size)
{
	snprintf(why, size, "echoc was built without liburing");
	return -ENOSYS;
}

const struct load_engine engine_uring = { .name = "io_uring", .probe = engine_uring_probe };
