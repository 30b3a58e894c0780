/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/daemonize.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/compat.h"
#include "base/log.h"
#include "daemon/signals.h"

static int report_fd = -1;

static int compare_fds(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Close the open descriptors from `first` to `last` one by one: those that /proc lists, else all that the
 * limit permits. */
static void close_each(unsigned first, unsigned last)
{
	DIR *directory = opendir("/proc/self/fd");
	long most = sysconf(_SC_OPEN_MAX);
	const struct dirent *entry;

	if (!directory) {
		for (unsigned fd = first; fd <= last && (most < 0 || (long) fd < most); fd++)
			close((int) fd);
		return;
	}
	while ((entry = readdir(directory)) != NULL) {
		unsigned fd;

		if (sscanf(entry->d_name, "%u", &fd) == 1 && fd >= first && fd <= last &&
		    (int) fd != dirfd(directory))
			close((int) fd);
	}
	closedir(directory);
}

static void close_from_to(unsigned first, unsigned last)
{
	/* kernels before Linux 5.9 lack it, and containers whose filter is older refuse it */
	if (compat_close_range(first, last) < 0)
		close_each(first, last);
}

void daemonize_close_others(int keep[], unsigned count)
{
	unsigned next = STDERR_FILENO + 1;

	qsort(keep, count, sizeof *keep, compare_fds);
	for (unsigned i = 0; i < count; i++) {
		if (keep[i] < (int) next)
			continue;
		if ((unsigned) keep[i] > next)
			close_from_to(next, (unsigned) keep[i] - 1);
		next = (unsigned) keep[i] + 1;
	}
	close_from_to(next, UINT_MAX);
}

/* The original process: wait for the report of the daemon and exit with it. Signals end it as any other
 * process, except SIGHUP, because the terminal may be closed meanwhile. */
static void __attribute__((noreturn)) wait_for_report(int fd, pid_t child)
{
	unsigned char status = EX_OSERR;
	ssize_t n;

	signal(SIGHUP, SIG_IGN);
	signals_unblock();
	do
		n = read(fd, &status, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		log_event(LOG_ERR, EVENT_START_FAILED, "The daemon ended before it was ready");
	waitpid(child, NULL, 0); /* the intermediate process, which has ended */
	_exit(status);
}

int daemonize(void)
{
	int ends[2], null;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		close(ends[1]);
		wait_for_report(ends[0], pid);
	}
	close(ends[0]);
	report_fd = ends[1];
	setsid();
	pid = fork(); /* not a session leader, so that it cannot acquire a terminal again */
	if (pid < 0) {
		log_event(LOG_ERR, EVENT_START_FAILED, "Cannot start: fork: %s", strerror(errno));
		daemonize_report(EX_OSERR);
		_exit(EX_OSERR);
	}
	if (pid > 0)
		_exit(0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	umask(0);
	return chdir("/") < 0 ? -errno : 0;
}

/* Redirect standard error to /dev/null. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDERR_FILENO);
		close(null);
	}
}

void daemonize_inherit(void)
{
	if (report_fd < 0)
		return;
	close(report_fd);
	report_fd = -1;
	leave_terminal();
}

void daemonize_report(int status)
{
	unsigned char byte = (unsigned char) status;

	if (report_fd < 0)
		return;
	leave_terminal();
	if (write(report_fd, &byte, 1) < 0)
		byte = 0; /* the original process has ended */
	close(report_fd);
	report_fd = -1;
}
