/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

static sigset_t inherited;

static void blocked_signals(sigset_t *set)
{
	static const int others[] = {
		/* faults */
		SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGTRAP, SIGABRT,
		/* job control, and signals that are ignored by default */
		SIGTSTP, SIGTTIN, SIGCONT, SIGURG, SIGWINCH,
		/* ignored: signals_reset() */
		SIGPIPE, SIGXFSZ, SIGTTOU,
	};

	sigfillset(set);
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		sigdelset(set, others[i]);
}

void signals_block(void)
{
	sigset_t set;

	blocked_signals(&set);
	sigprocmask(SIG_BLOCK, &set, &inherited);
}

void signals_unblock(void)
{
	sigprocmask(SIG_SETMASK, &inherited, NULL);
}

void signals_reset(void)
{
	struct sigaction action;
	sigset_t set;

	/* handlers stay: sanitizers install some for faults */
	for (int number = 1; number < NSIG; number++)
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			signal(number, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	blocked_signals(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

int signals_open(void)
{
	sigset_t set;
	int fd;

	blocked_signals(&set);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

char *signals_name(int number, char text[static 32])
{
#ifdef HAVE_SIGABBREV_NP
	const char *name = sigabbrev_np(number);
#else
	const char *name = NULL;
#endif

	if (name)
		snprintf(text, 32, "SIG%s", name);
	else if (number >= SIGRTMIN && number <= SIGRTMAX)
		snprintf(text, 32, "SIGRTMIN+%d", number - SIGRTMIN);
	else
		snprintf(text, 32, "signal %d", number);
	return text;
}
