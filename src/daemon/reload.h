/* SPDX-License-Identifier: ISC */
/* reload.h - the reload: a new crew under a new configuration replaces the current one
 *
 * Supervisor only.
 */
#ifndef ECHOD_DAEMON_RELOAD_H
#define ECHOD_DAEMON_RELOAD_H

#include "daemon/supervisor_state.h"

/* Read and check the file, open new listeners, and start a crew. If that fails, log the reason and keep the
 * running configuration. */
void reload_begin(struct supervisor *supervisor);

/* The crew that reload_begin() has started is ready: ask the old one to hand over, and retire listeners that
 * the new configuration does not name. */
void reload_done(struct supervisor *supervisor);

/* Log why a reload failed. */
void reload_failed(struct supervisor *supervisor, const char *why);

#endif
