/* SPDX-License-Identifier: ISC */
/* daemonize.h - into the background, as daemon(7) describes for SysV daemons
 *
 * Main thread, before anything else is started.
 */
#ifndef ECHOD_DAEMON_DAEMONIZE_H
#define ECHOD_DAEMON_DAEMONIZE_H

/* Close every descriptor above 2 but the `count` at `keep`, which is sorted on the way. */
void daemonize_close_others(int keep[], unsigned count);

/* Fork into the background: returns in the daemon, 0, or -errno in the caller's process where
 * it could not fork. The original process stays until daemonize_report() and then exits with
 * the status reported; where the daemon ends without a report, it says so and exits with EX_OSERR. Standard input and output are
 * /dev/null from here on; standard error stays the terminal's until the report. */
int daemonize(void);

/* In a process forked from a daemon that has not reported yet: let go of the terminal and of
 * the report, which are the daemon's alone. */
void daemonize_inherit(void);

/* Tell the waiting original process the outcome (0: ready, else an exit status), and let go of the
 * terminal. Does nothing when not daemonized or already told. */
void daemonize_report(int status);

#endif
