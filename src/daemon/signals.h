/* SPDX-License-Identifier: ISC */
/* signals.h - which signals the daemon takes, from its first instruction on
 *
 * All signals that would end a process are blocked in every process of the daemon, in workers too, and read by the supervisor
 * from a signalfd(2). Exceptions: signals of faults (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGTRAP) and SIGABRT keep
 * their default action, so do the signals of job control; SIGPIPE, SIGXFSZ and SIGTTOU, which a write(2) to the log may
 * raise, are ignored. Main thread, before threads are started.
 */
#ifndef ECHOD_DAEMON_SIGNALS_H
#define ECHOD_DAEMON_SIGNALS_H

#include <signal.h>
#include <stddef.h>

/* Block them. Called first in main(), so that a signal that arrives during the start waits. */
void signals_block(void);

/* Return to the signal mask from before signals_block(): in processes that are not the daemon. */
void signals_unblock(void);

/* In the daemon: undo what the calling process has blocked or ignored, which would otherwise be inherited. */
void signals_reset(void);

/* Returns a signalfd of the blocked signals, non-blocking and close-on-exec, or -errno. */
int signals_open(void);

/* The name of a signal, such as "SIGUSR2" or "SIGRTMIN+3", in `text`. Returns `text`. */
char *signals_name(int number, char text[static 32]);

#endif
