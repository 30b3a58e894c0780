#include <config.h>

#include "base/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"

bool notify_enabled(void)
{
	const char *path = getenv("NOTIFY_SOCKET");

	return path && *path;
}

void notify_send(const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	(void) sd_notify(0, text);
}

void notify_reloading(void)
{
	notify_send("RELOADING=1\nMONOTONIC_USEC=%" PRId64 "\nSTATUS=Reloading the configuration", clock_usec());
}

void notify_store(const char *name, int fd, bool poll)
{
	char text[256];

	snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s%s", name, poll ? "" : "\nFDPOLL=0");
	(void) sd_pid_notify_with_fds(0, 0, text, &fd, 1);
}

void notify_unstore(const char *name)
{
	notify_send("FDSTOREREMOVE=1\nFDNAME=%s", name);
}

void notify_barrier(uint64_t timeout)
{
	(void) sd_notify_barrier(0, timeout);
}

uint64_t notify_watchdog_usec(void)
{
	uint64_t usec = 0;

	return sd_watchdog_enabled(0, &usec) > 0 ? usec : 0;
}
