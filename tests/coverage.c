/* SPDX-License-Identifier: ISC */
/* coverage.c - _exit() for --enable-coverage: writes the counts before the process ends
 *
 * Workers end with _exit(), as forked children must, which would lose their counts. The linker (--wrap=_exit)
 * replaces it by this function. A service that systemd prevents from writing files loses its counts; it must
 * not report this in the journal, because tests read the journal.
 */
#include <config.h>

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef ECHOD_MCDC
int __llvm_profile_write_file(void);
#define write_counts() (void) __llvm_profile_write_file()
#else
#include <gcov.h>
#define write_counts() __gcov_dump()
#endif

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
	write_counts();
	__real__exit(status);
}
