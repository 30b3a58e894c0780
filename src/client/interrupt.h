/* SPDX-License-Identifier: ISC */
/* interrupt.h - signals that end the work, but not the report; and SIGQUIT, which requests a summary
 *
 * After interrupt_init() SIGINT, SIGTERM, SIGHUP and SIGQUIT are blocked in the whole process and are
 * delivered only while ppoll(2) waits with interrupt_mask(), so that no signal is lost between a test and
 * a wait. Main thread, before any other thread is started.
 */
#ifndef ECHOD_CLIENT_INTERRUPT_H
#define ECHOD_CLIENT_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

/* Also ignores SIGPIPE. */
void interrupt_init(void);

/* The signal mask for ppoll(2). */
const sigset_t *interrupt_mask(void);

/* Whether SIGQUIT (Ctrl-\) has come since the last call: a summary is requested. */
bool interrupt_summary(void);

/* Whether one of the signals that end the work has come. Includes a pending one, so that a wait is not
 * needed. */
bool interrupt_seen(void);

#endif
