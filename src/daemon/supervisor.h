/* SPDX-License-Identifier: ISC */
/* supervisor.h - the process that starts, watches, replaces and stops the crews
 *
 * One thread, one poll(2) over a signalfd, the workers' log relay and the pipes of the crews. It serves no
 * connections and, once started, blocks nowhere else.
 */
#ifndef ECHOD_DAEMON_SUPERVISOR_H
#define ECHOD_DAEMON_SUPERVISOR_H

#include "conf/conf.h"
#include "conf/options.h"
#include "daemon/fdstore.h"

/* Run the daemon under `conf`, which it takes over: bind, drop privileges, start the first crew, serve until
 * a signal ends it. `store`: descriptors that the service manager passed. Returns the exit status
 * (sysexits(3)). */
int supervisor_run(struct conf *conf, const struct options *options, struct fdstore *store);

#endif
