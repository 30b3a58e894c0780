/* SPDX-License-Identifier: ISC */
/* output.c - see output.h */
#include <config.h>

#include "client/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int flush_errno;

double output_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

bool output_flush(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	if (flush_errno == 0)
		flush_errno = errno;
	return false;
}

const char *output_error(void)
{
	if (output_flush())
		return NULL;
	return flush_errno != 0 ? strerror(flush_errno) : "some output was not written";
}

void output_line_begin(bool timestamps)
{
	if (timestamps)
		printf("[%.6f] ", output_time());
}
