/* SPDX-License-Identifier: ISC */
/* coverage.c - in a --enable-coverage build, _exit() writes the counts that it would lose
 *
 * Workers end with _exit(), as forked children must. The linker (--wrap=_exit) sends that here.
 * A service that systemd keeps from writing loses its counts; it shall not say so in the journal,
 * which tests read.
 */
#include <config.h>

#include <fcntl.h>
#include <gcov.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void __wrap__exit(int status);
_Noreturn void __real__exit(int status);

/* Also before what libgcov does at exit(3): destructors without a priority are the first. */
static void __attribute__((destructor)) leave_the_journal(void)
{
	int fd;

	if (!getenv("JOURNAL_STREAM")) /* systemd.exec(5) */
		return;
	fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void) dup2(fd, STDERR_FILENO);
}

void __wrap__exit(int status)
{
	leave_the_journal();
	__gcov_dump();
	__real__exit(status);
}
