/* SPDX-License-Identifier: ISC */
/* timeout.h - limit the time of a call that may block
 *
 * For calls that cannot be asked not to wait: write(2) on an inherited descriptor, whose flags belong to
 * other processes too, and the logging and notification functions of libraries. While a struct timeout is
 * running, blocking system calls fail with EINTR once its time is over. For processes with one thread. One
 * timeout at a time.
 */
#ifndef ECHOD_BASE_TIMEOUT_H
#define ECHOD_BASE_TIMEOUT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct timeout {
	timer_t timer;
	bool running;
};

/* Interrupt blocking system calls after `usec` microseconds, and again after each further `usec`, with
 * SIGURG, whose default is to be ignored. If no timer can be created (RLIMIT_SIGPENDING), calls are not
 * limited. */
void timeout_start(struct timeout *timeout, int64_t usec);

/* Stop the timer. Returns whether it expired at least once. */
bool timeout_stop(struct timeout *timeout);

#endif
