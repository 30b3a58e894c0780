/* interrupt.h - Ctrl-C ends the work, not the report
 *
 * After interrupt_init() SIGINT, SIGTERM and SIGHUP are blocked in the whole process and admitted only while
 * ppoll(2) waits with interrupt_mask(), so none is lost between a test and a wait.
 * Main thread only, before any other thread is started.
 */
#ifndef ECHOD_CLIENT_INTERRUPT_H
#define ECHOD_CLIENT_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

/* Also has SIGPIPE ignored. */
void interrupt_init(void);

/* The mask to wait with. */
const sigset_t *interrupt_mask(void);

/* The blocked signals, for sigtimedwait(2). */
const sigset_t *interrupt_set(void);

/* Whether one has come. Looks for a pending one too, so it is right without a wait. */
bool interrupt_seen(void);

#endif
