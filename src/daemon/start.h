/* SPDX-License-Identifier: ISC */
/* start.h - the start of the daemon: everything until its first crew is ready
 *
 * Supervisor only.
 */
#ifndef ECHOD_DAEMON_START_H
#define ECHOD_DAEMON_START_H

#include "conf/conf.h"
#include "daemon/fdstore.h"
#include "daemon/supervisor_state.h"

/* Set the exit status, and log why the start failed. */
void start_failed(struct supervisor *supervisor, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Bind, drop privileges and start the first crew. Takes over `conf`; `store`: descriptors that the service
 * manager passed. Returns 0, or -errno with the exit status set, which is 0 if a signal cancelled the start.
 */
int start_begin(struct supervisor *supervisor, struct conf *conf, struct fdstore *store);

/* The first crew is ready: report it to the service manager, the log and the parent process. */
void start_done(struct supervisor *supervisor);

#endif
