/* coverage.c - in a --enable-coverage build, _exit() writes the counts that it would lose
 *
 * Workers end with _exit(), as forked children must. The linker (--wrap=_exit) sends that here.
 * A service that systemd keeps from writing loses its counts; it shall not say so in the journal,
 * which tests read.
 */
#include <config.h>

#include <gcov.h>
#include <stdlib.h>

_Noreturn void __wrap__exit(int status);
_Noreturn void __real__exit(int status);

static void __attribute__((constructor)) complain_nowhere(void)
{
	setenv("GCOV_ERROR_FILE", "/dev/null", 0);
}

void __wrap__exit(int status)
{
	__gcov_dump();
	__real__exit(status);
}
