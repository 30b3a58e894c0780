/* SPDX-License-Identifier: ISC */
/* daemonize.h - run in the background, as daemon(7) describes for SysV daemons
 *
 * Main thread, before other threads or processes are started.
 */
#ifndef ECHOD_DAEMON_DAEMONIZE_H
#define ECHOD_DAEMON_DAEMONIZE_H

/* Close every descriptor above 2 except the `count` at `keep`, which is sorted. */
void daemonize_close_others(int keep[], unsigned count);

/* Fork into the background. Returns 0 in the daemon, or -errno in the calling process where it could not
 * fork. The original process waits for daemonize_report() and exits with the reported status; where the
 * daemon ends without a report, it prints an error and exits with EX_OSERR. In the daemon standard input and
 * output are /dev/null; standard error remains the terminal until the report. */
int daemonize(void);

/* In a process forked from a daemon that has not reported yet: close the terminal and the report pipe, which
 * belong to the daemon. */
void daemonize_inherit(void);

/* Report the outcome (0: ready, else an exit status) to the original process, and close the terminal. Does
 * nothing when not daemonized or already reported. */
void daemonize_report(int status);

#endif
