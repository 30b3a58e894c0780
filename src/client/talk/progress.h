/* progress.h - one line on the terminal that tells how far a long copy is
 *
 * Written to standard error, only where that is a terminal, and only once a second has gone by. Main thread.
 */
#ifndef ECHOD_CLIENT_PROGRESS_H
#define ECHOD_CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool wanted;
	bool shown;
	uint64_t begun; /* ticks */
	uint64_t next;  /* ticks */
	uint64_t total; /* bytes standard input holds; 0: not known */
	uint64_t came;  /* what was shown last */
};

void progress_begin(struct progress *progress, bool quiet);

/* Show the line again, if it is time to. */
void progress_show(struct progress *progress, uint64_t sent, uint64_t came);

/* When it will next be time; NSEC_NEVER where nothing is to be shown. */
uint64_t progress_due(const struct progress *progress);

/* Leave the line as it is and begin a new one. Harmless more than once. */
void progress_end(struct progress *progress);

#endif
