/* SPDX-License-Identifier: ISC */
/* uring_stub.c - the io_uring model of a build without liburing; its row stays in the table */
#include <config.h>

#include <errno.h>
#include <stdio.h>

#include "models/model.h"

const char *uring_probe(char *text, size_t size)
{
	snprintf(text, size,
	         "this echod was built without liburing; install its development files and build it again");
	return text;
}

int uring_prepare(struct worker *worker)
{
	(void) worker;
	return -ENOSYS;
}

int uring_run(struct worker *worker)
{
	(void) worker;
	return -ENOSYS;
}
