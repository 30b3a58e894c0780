/* SPDX-License-Identifier: ISC */
/* progress.h - status line of a long copy
 *
 * Printed on standard error if that is a terminal, from the first second on. Main thread.
 */
#ifndef ECHOD_CLIENT_PROGRESS_H
#define ECHOD_CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool enabled;
	bool shown;
	uint64_t start; /* nanoseconds, as `next` */
	uint64_t next;
	uint64_t total;    /* bytes of standard input; 0: unknown */
	uint64_t received; /* shown last */
};

void progress_begin(struct progress *progress, bool quiet);

/* Update the line if it is time. */
void progress_show(struct progress *progress, uint64_t sent, uint64_t received);

/* When the line is to be updated next; NSEC_NEVER if nothing is to be shown. */
uint64_t progress_due(const struct progress *progress);

/* Finish the line with a newline. May be called again. */
void progress_end(struct progress *progress);

#endif
