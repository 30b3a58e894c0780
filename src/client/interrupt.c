/* interrupt.c - see interrupt.h */
#include <config.h>

#include "client/interrupt.h"

#include <stddef.h>

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

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

	sigemptyset(&action.sa_mask);
	sigemptyset(&blocked);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
		sigaddset(&blocked, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigaction(SIGPIPE, &ignore, NULL);
	sigprocmask(SIG_BLOCK, &blocked, &waiting);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		sigdelset(&waiting, signals[i]);
}

const sigset_t *interrupt_mask(void)
{
	return &waiting;
}

bool interrupt_seen(void)
{
	struct timespec none = { 0 };

	if (!seen && sigtimedwait(&blocked, NULL, &none) > 0)
		seen = 1;
	return seen;
}
