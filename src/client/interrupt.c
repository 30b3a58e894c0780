/* interrupt.c - see interrupt.h */
#include <config.h>

#include "client/interrupt.h"

#include <stddef.h>

static volatile sig_atomic_t seen;
static sigset_t blocked, waiting;

static void on_signal(int signal)
{
	(void) signal;
	seen = 1;
}

void interrupt_init(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGHUP);
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	sigprocmask(SIG_BLOCK, &blocked, &waiting);
	sigdelset(&waiting, SIGINT);
	sigdelset(&waiting, SIGTERM);
	sigdelset(&waiting, SIGHUP);
}

const sigset_t *interrupt_mask(void)
{
	return &waiting;
}

const sigset_t *interrupt_set(void)
{
	return &blocked;
}

bool interrupt_seen(void)
{
	struct timespec none = { 0 };

	if (!seen && sigtimedwait(&blocked, NULL, &none) > 0)
		seen = 1;
	return seen;
}
