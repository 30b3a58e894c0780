/* SPDX-License-Identifier: ISC */
/* retire.h - listeners that a new configuration does not name
 *
 * They take no new clients, and before they are closed, the clients in their backlogs are handed to the new
 * workers. Supervisor only.
 */
#ifndef ECHOD_DAEMON_RETIRE_H
#define ECHOD_DAEMON_RETIRE_H

#include "daemon/supervisor_state.h"

/* Retire the listeners of `have` that `conf` does not name, and forget the others of `have`, which now belong
 * to the new set. */
void retire_unnamed(struct supervisor *supervisor, struct sockets *have, const struct conf *conf);

/* Empty the backlogs of retired listeners and, after RETIRE_TIME, close them, except those with clients that
 * cannot be taken yet, for example because of EMFILE. To be called at `retire_at`; `now`: clock_usec(), or
 * INT64_MAX for the end of RETIRE_TIME. */
void retire_maintain(struct supervisor *supervisor, int64_t now);

/* Close retired listeners. Clients in their backlogs are reset. */
void retire_close(struct supervisor *supervisor);

#endif
