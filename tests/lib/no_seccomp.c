/* SPDX-License-Identifier: ISC */
/* no_seccomp.c - a kernel without CONFIG_SECCOMP_FILTER: for valgrind, whose own system calls a filter would
 * refuse */
#include <errno.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* the name of prctl(2) with 64-bit time on 32-bit systems */
int __prctl_time64(int option, ...) __attribute__((alias("prctl")));

int prctl(int option, ...)
{
	unsigned long arguments[4];
	va_list ap;

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		arguments[i] = va_arg(ap, unsigned long);
	va_end(ap);
	if (option == PR_SET_SECCOMP) {
		errno = EINVAL;
		return -1;
	}
	return (int) syscall(SYS_prctl, option, arguments[0], arguments[1], arguments[2], arguments[3]);
}
