/* SPDX-License-Identifier: ISC */
/* interrupt.c - see interrupt.h */
#include <config.h>

#include "client/interrupt.h"

#include <stddef.h>

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

static volatile sig_atomic_t seen, summary;
static sigset_t ending, quitting, waiting;

static void on_signal(int signal)
{
	if (signal == SIGQUIT)
		summary = 1;
	else
		seen = 1;
}

void interrupt_init(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigemptyset(&action.sa_mask);
	sigemptyset(&ending);
	sigemptyset(&quitting);
	sigaddset(&quitting, SIGQUIT);
	sigaction(SIGQUIT, &action, NULL);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
		sigaddset(&ending, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigaction(SIGPIPE, &ignore, NULL);
	sigprocmask(SIG_BLOCK, &quitting, NULL);
	sigprocmask(SIG_BLOCK, &ending, &waiting);
	sigdelset(&waiting, SIGQUIT);
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

	if (!seen && sigtimedwait(&ending, NULL, &none) > 0)
		seen = 1;
	return seen;
}

bool interrupt_summary(void)
{
	struct timespec none = { 0 };
	bool requested = summary || sigtimedwait(&quitting, NULL, &none) > 0;

	summary = 0;
	return requested;
}
