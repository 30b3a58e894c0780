/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/timeout.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

#include "base/clock.h"

static volatile sig_atomic_t expired;

static void on_expiry(int number, siginfo_t *info, void *context)
{
	(void) number;
	(void) context;
	if (info->si_code == SI_TIMER)
		expired = 1;
}

void timeout_start(struct timeout *timeout, int64_t usec)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
	struct timespec time = { .tv_sec = (time_t) (usec / USEC_PER_SEC),
	                         .tv_nsec = (long) (usec % USEC_PER_SEC * 1000) };
	struct itimerspec spec = { .it_value = time, .it_interval = time };
	struct sigaction action = { .sa_sigaction = on_expiry, .sa_flags = SA_SIGINFO }; /* no SA_RESTART */

	expired = 0;
	timeout->running = sigaction(SIGURG, &action, NULL) == 0 &&
	                   timer_create(CLOCK_MONOTONIC, &event, &timeout->timer) == 0;
	if (timeout->running)
		(void) timer_settime(timeout->timer, 0, &spec, NULL);
}

bool timeout_stop(struct timeout *timeout)
{
	int saved = errno;

	if (timeout->running)
		(void) timer_delete(timeout->timer);
	timeout->running = false;
	errno = saved;
	return expired;
}
