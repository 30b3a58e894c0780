/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/escape.h"
#include "base/timeout.h"

/* Maximum time for sending one message, and how long a service manager that needed more gets no further
 * ones. */
#define SEND_TIMEOUT (200 * USEC_PER_MSEC)
#define SEND_PAUSE (2 * USEC_PER_SEC)

/* The same for a descriptor that is lost if it is not stored. */
#define FDSTORE_TIMEOUT (5 * USEC_PER_SEC)

static int64_t paused_until;
static bool lost;

bool notify_enabled(void)
{
	const char *path = getenv("NOTIFY_SOCKET");

	return path && *path;
}

/* Send `text` and, unless it is -1, `fd`, within `limit` microseconds. Returns 0 or -errno. */
static int send_message(const char *text, int fd, int64_t limit)
{
	struct timeout timeout;
	int r;

	if (!notify_enabled())
		return -ENOTCONN;
	if (limit <= SEND_TIMEOUT && clock_usec() < paused_until) {
		lost = true;
		return -EAGAIN;
	}
	timeout_start(&timeout, limit);
	r = fd >= 0 ? sd_pid_notify_with_fds(0, 0, text, &fd, 1) : sd_notify(0, text);
	/* on a busy machine the time may also pass while the message is being sent */
	if (timeout_stop(&timeout) && r < 0)
		paused_until = clock_usec() + SEND_PAUSE;
	lost |= r == -EINTR || r == -EAGAIN;
	return r < 0 ? r : 0;
}

bool notify_take_lost(void)
{
	bool result = lost;

	lost = false;
	return result;
}

void notify_send(const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	(void) send_message(text, -1, SEND_TIMEOUT);
}

void notify_status(const char *state, const char *format, ...)
{
	char text[1024], status[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	/* a newline would begin another assignment: sd_notify(3) */
	escape_controls(status, sizeof status - 128, text, strlen(text));
	notify_send("%s%sSTATUS=%s", state, *state ? "\n" : "", status);
}

void notify_reloading(void)
{
	char state[64];

	snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_usec());
	notify_status(state, "Reloading the configuration");
}

int notify_store(const char *name, int fd, bool wait)
{
	char text[512], plain[256];

	escape_controls(plain, sizeof plain, name, strlen(name));
	snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", plain);
	return send_message(text, fd, wait ? FDSTORE_TIMEOUT : SEND_TIMEOUT);
}

void notify_unstore(const char *name)
{
	char plain[256];

	escape_controls(plain, sizeof plain, name, strlen(name));
	notify_send("FDSTOREREMOVE=1\nFDNAME=%s", plain);
}

void notify_barrier(uint64_t timeout)
{
	struct timeout limit;

	if (clock_usec() < paused_until)
		return;
	timeout_start(&limit, (int64_t) timeout);
	(void) sd_notify_barrier(0, timeout);
	(void) timeout_stop(&limit);
}

uint64_t notify_watchdog_usec(void)
{
	uint64_t usec = 0;

	return sd_watchdog_enabled(0, &usec) > 0 ? usec : 0;
}
