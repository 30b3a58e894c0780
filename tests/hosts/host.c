/* SPDX-License-Identifier: ISC */
/* host.c - emulates another host for the process that preloads this (LD_PRELOAD): results of system calls,
 * and files
 *
 * These variables of the environment describe the host:
 *
 * - HOST_NOFILE=N: the hard RLIMIT_NOFILE is N and the soft one 1024; the real limit stays.
 *
 * - HOST_WMEM_MAX=N: net.core.wmem_max is N, and the caller has no CAP_NET_ADMIN to exceed it.
 *
 * - HOST_PROCESSORS=N: the affinity mask has N processors.
 *
 * - HOST_NO_IPV6=1: the kernel has no IPv6.
 *
 * - HOST_LAST_CALL=N: the kernel has no system call with a number greater than N. From 424 on, which is Linux
 *   5.1, all architectures have the same numbers.
 *
 * - HOST_FILES=DIR: a file that exists in DIR (DIR/proc/self/cgroup) is read instead of the one of that path.
 *
 * Any thread; each function is as its manual page says.
 */
#include <config.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SOFT_NOFILE 1024

/* --- RLIMIT_NOFILE ----------------------------------------------------------------------- */

static rlim_t soft_nofile = SOFT_NOFILE, hard_nofile;

/* The hard limit to show; 0: the real one. */
static rlim_t nofile(void)
{
	const char *given = getenv("HOST_NOFILE");

	if (given && hard_nofile == 0)
		hard_nofile = strtoull(given, NULL, 10);
	return hard_nofile;
}

int prlimit64(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *new, struct rlimit64 *old)
{
	if (resource != RLIMIT_NOFILE || nofile() == 0)
		return (int) syscall(SYS_prlimit64, pid, resource, new, old);
	if (new && (new->rlim_cur > new->rlim_max || new->rlim_max > hard_nofile)) {
		errno = new->rlim_cur > new->rlim_max ? EINVAL : EPERM;
		return -1;
	}
	if (old)
		*old = (struct rlimit64) { .rlim_cur = soft_nofile, .rlim_max = hard_nofile };
	if (new) {
		soft_nofile = new->rlim_cur;
		hard_nofile = new->rlim_max;
	}
	return 0;
}

int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit)
{
	return prlimit64(0, resource, NULL, limit);
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return prlimit64(0, resource, limit, NULL);
}

/* The names without 64, where both mean the same. */
#if __SIZEOF_LONG__ == 8
int other_getrlimit(__rlimit_resource_t resource, struct rlimit64 *limit) __asm__("getrlimit");
int other_setrlimit(__rlimit_resource_t resource, const struct rlimit64 *limit) __asm__("setrlimit");
int other_prlimit(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *new,
                  struct rlimit64 *old) __asm__("prlimit");

int other_getrlimit(__rlimit_resource_t resource, struct rlimit64 *limit)
{
	return prlimit64(0, resource, NULL, limit);
}

int other_setrlimit(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return prlimit64(0, resource, limit, NULL);
}

int other_prlimit(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *new, struct rlimit64 *old)
{
	return prlimit64(pid, resource, new, old);
}
#endif

/* --- sockets ----------------------------------------------------------------------------- */

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	const char *most = getenv("HOST_WMEM_MAX");

	if (most && level == SOL_SOCKET && option == SO_SNDBUFFORCE) {
		errno = EPERM;
		return -1;
	}
	if (most && level == SOL_SOCKET && option == SO_SNDBUF && length == sizeof(int) &&
	    *(const int *) value > atoi(most)) {
		int size = atoi(most);

		return (int) syscall(SYS_setsockopt, fd, level, option, &size, sizeof size);
	}
	return (int) syscall(SYS_setsockopt, fd, level, option, value, length);
}

int socket(int domain, int type, int protocol)
{
	if (domain == AF_INET6 && getenv("HOST_NO_IPV6")) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	return (int) syscall(SYS_socket, domain, type, protocol);
}

/* --- processors -------------------------------------------------------------------------- */

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
	const char *given = getenv("HOST_PROCESSORS");
	long r;

	if (!given) {
		r = syscall(SYS_sched_getaffinity, pid, size, set);
		if (r < 0)
			return -1;
		memset((char *) set + r, 0, size - (size_t) r);
		return 0;
	}
	memset(set, 0, size);
	for (size_t i = 0; i < strtoul(given, NULL, 10) && i < size * CHAR_BIT; i++)
		CPU_SET_S(i, size, set);
	return 0;
}

/* --- system calls ------------------------------------------------------------------------ */

/* Install a filter, which children inherit. */
__attribute__((constructor)) static void limit_system_calls(void)
{
	const char *last = getenv("HOST_LAST_CALL");
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, last ? (unsigned) atoi(last) : UINT_MAX, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof filter / sizeof filter[0], .filter = filter };

	/* without the privilege to install a filter */
	if (last && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0 &&
	    (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	     prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0)) {
		perror("HOST_LAST_CALL");
		abort();
	}
}

/* --- files ------------------------------------------------------------------------------- */

/* Returns `path`, or the path of the file to read instead, which is stored in `other` (PATH_MAX bytes). */
static const char *substitute(const char *path, char *other)
{
	const char *directory = getenv("HOST_FILES");

	if (!directory || path[0] != '/' || snprintf(other, PATH_MAX, "%s%s", directory, path) >= PATH_MAX ||
	    access(other, R_OK) < 0)
		return path;
	return other;
}

FILE *fopen64(const char *path, const char *mode)
{
	FILE *(*next)(const char *, const char *) = (FILE * (*) (const char *, const char *) )
		dlsym(RTLD_NEXT, "fopen64");
	char other[PATH_MAX];

	return next(substitute(path, other), mode);
}

#if __SIZEOF_LONG__ == 8
FILE *other_fopen(const char *path, const char *mode) __asm__("fopen");

FILE *other_fopen(const char *path, const char *mode)
{
	return fopen64(path, mode);
}
#endif
