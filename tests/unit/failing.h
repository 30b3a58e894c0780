/* SPDX-License-Identifier: ISC */
/* failing.h - child processes in which system calls fail, for unit tests of errors */
#ifndef ECHOD_TESTS_UNIT_FAILING_H
#define ECHOD_TESTS_UNIT_FAILING_H

#include <endian.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Numbers of the system calls that the C library uses where addresses have 32 bits, too. */
#ifdef SYS_mmap2
#define CALL_MMAP SYS_mmap2
#else
#define CALL_MMAP SYS_mmap
#endif
#ifdef SYS_fcntl64
#define CALL_FCNTL SYS_fcntl64
#else
#define CALL_FCNTL SYS_fcntl
#endif
#ifdef SYS_ftruncate64
#define CALL_FTRUNCATE SYS_ftruncate64
#else
#define CALL_FTRUNCATE SYS_ftruncate
#endif

/* System call `number` fails with `error` in this process from now on, where the bits `mask` of its argument
 * `argument` (from 0) have the value `bits`. Returns false where the kernel has no system call filters:
 * seccomp(2). */
static inline bool call_fails(long number, unsigned argument, uint32_t mask, uint32_t bits, int error)
{
	uint32_t low = (uint32_t) offsetof(struct seccomp_data, args) + argument * 8 +
	               (__BYTE_ORDER == __BIG_ENDIAN ? 4 : 0);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t) offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) number, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, bits, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t) error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof code[0], code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/* Run `check` in a child process. Returns what it returned, 0 to 127, or -1 where the child was killed. */
static inline int in_child(int (*check)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(check());
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Number of mappings of this process whose line in /proc/self/maps contains `name`. */
static inline unsigned count_mappings(const char *name)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned count = 0;
	char line[512];

	while (file && fgets(line, sizeof line, file))
		count += strstr(line, name) != NULL;
	if (file)
		fclose(file);
	return count;
}

/* Number of open descriptors of this process. */
static inline int count_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD, 0) >= 0; /* call_fails() may look at the third argument */
	return count;
}

#endif
