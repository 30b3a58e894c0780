/* SPDX-License-Identifier: ISC */
/* signals.h - signal handling of the daemon, from its first instruction on
 *
 * All signals that would end a process are blocked in every process of the daemon, including workers, and
 * read by the supervisor from a signalfd(2). Exceptions: signals of faults (SIGSEGV, SIGBUS, SIGILL, SIGFPE,
 * SIGSYS, SIGTRAP), SIGABRT and the signals of job control keep their default action; SIGPIPE, SIGXFSZ and
 * SIGTTOU, which a write(2) to the log may raise, are ignored. Main thread, before threads are started.
 */
#ifndef ECHOD_DAEMON_SIGNALS_H
#define ECHOD_DAEMON_SIGNALS_H

#include <signal.h>
#include <stddef.h>

/* Block the signals. Must be called first in main(), so that signals that arrive during the start are
 * kept. */
void signals_block(void);

/* Restore the signal mask from before signals_block(), in processes that are not the daemon. */
void signals_unblock(void);

/* In the daemon: reset what the calling process has blocked or ignored, which is inherited. */
void signals_reset(void);

/* Returns a signalfd of the blocked signals, non-blocking and close-on-exec, or -errno. */
int signals_open(void);

/* Write the name of a signal to `text`, such as "SIGUSR2" or "SIGRTMIN+3". Returns `text`. */
char *signals_name(int number, char text[static 32]);

#endif
