/* SPDX-License-Identifier: ISC */
/* notify.h - messages to the service manager; the only user of sd_notify(3)
 *
 * Supervisor only. Without NOTIFY_SOCKET every function does nothing and returns 0. A service manager that
 * does not read never blocks the service: a message that it does not take within 200 ms is lost, and so are
 * those of the next two seconds (notify_take_lost()).
 */
#ifndef ECHOD_BASE_NOTIFY_H
#define ECHOD_BASE_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Whether there is a service manager. */
bool notify_enabled(void);

/* Send assignments without text from other sources, such as "WATCHDOG=1", printf-style, as one message. */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Send the assignments `state` ("READY=1"; may be empty) and STATUS= with a printf-style text, in which
 * control characters are escaped: it may contain what a worker, a file or a peer wrote. */
void notify_status(const char *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "RELOADING=1" with MONOTONIC_USEC= in the same message, as systemd requires. */
void notify_reloading(void);

/* Whether messages were lost since the last call: the state of the service should then be sent again, after a
 * pause. */
bool notify_take_lost(void);

/* Put `fd` under `name` into the manager's descriptor store (FDSTORE=1). The manager keeps a duplicate, even
 * after an error or hang-up on it. With `wait`, a manager that is busy is waited for, up to 5 s. Returns 0,
 * or -errno where it was not sent. */
int notify_store(const char *name, int fd, bool wait);

/* Remove everything stored under `name`. */
void notify_unstore(const char *name);

/* Wait until the manager has read all that was sent, `timeout` microseconds at most. A manager that does not
 * know BARRIER=1 makes the caller wait for all of it: only for what would be lost otherwise. */
void notify_barrier(uint64_t timeout);

/* Interval in which the manager expects WATCHDOG=1, in microseconds; 0 where it does not.
 * Takes WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)) into account. */
uint64_t notify_watchdog_usec(void);

#endif
