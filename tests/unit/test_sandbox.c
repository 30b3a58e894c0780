/* SPDX-License-Identifier: ISC */
/* test_sandbox.c - the manual lists the system calls of the table; a filter is made for each model */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#ifdef HAVE_LIBSECCOMP
#include <byteswap.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#endif

#include "models/model.h"

static char *read_file(const char *name)
{
	const char *source = getenv("ECHOD_SRCDIR");
	char path[4096], *text;
	size_t size = 1 << 20, n;
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", source ? source : ".", name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("cannot open %s; ECHOD_SRCDIR must name the source tree", path);
	text = calloc(1, size);
	assert_non_null(text);
	n = fread(text, 1, size - 1, file);
	assert_true(n > 0);
	fclose(file);
	return text;
}

static void test_manual_lists_the_calls(void **state)
{
	char *manual = read_file("man/echod.8"), *table;
	size_t size;
	FILE *out = open_memstream(&table, &size);
	const char *why;

	(void) state;
	sandbox_print(out);
	fclose(out);
	if (size == 0 && !sandbox_can_filter(&why)) {
		print_message("not checked: %s\n", why);
		skip();
	}
#if !defined ECHOD_FAULTS && !defined ECHOD_COVERAGE && !defined ECHOD_SANITIZERS
	if (!strstr(manual, table))
		fail_msg("the list of system calls in man/echod.8 must be:\n%s", table);
#endif
	free(table);
	free(manual);
}

static void test_filters_are_made(void **state)
{
	const char *why;

	(void) state;
	if (!sandbox_can_filter(&why)) {
		print_message("not checked: %s\n", why);
		skip();
	}
	for (size_t i = 0; model_names[i]; i++) {
		unsigned uses = SANDBOX_STREAMS | model_find(model_names[i])->uses;
		struct sock_fprog *filter;

		for (unsigned threads = 0; threads < 2; threads++) {
			assert_int_equal(sandbox_filter_make(&filter,
			                                     threads ? uses | SANDBOX_THREADS : uses),
			                 0);
			assert_non_null(filter);
			assert_true(filter->len > 20);
			sandbox_filter_free(filter);
		}
	}
}

#ifdef HAVE_LIBSECCOMP
/* ---- other architectures ---- */

enum {
	X86_64 = 1,
	I386 = 2,
	ARM64 = 4,
	ARMHF = 8,
	S390X = 16,
	BITS_32 = I386 | ARMHF,
	BITS_64 = X86_64 | ARM64 | S390X,
	EVERY = 31
};

static const struct architecture {
	unsigned bit;
	uint32_t token;
	const char *name;
	bool big_endian;
} architectures[] = {
	{ X86_64, SCMP_ARCH_X86_64, "x86-64", false }, { I386, SCMP_ARCH_X86, "i386", false },
	{ ARM64, SCMP_ARCH_AARCH64, "arm64", false },  { ARMHF, SCMP_ARCH_ARM, "armhf", false },
	{ S390X, SCMP_ARCH_S390X, "s390x", true },
};

/* A classic BPF program run on one system call: seccomp_data has the byte order of the architecture. Returns
 * the action. */
static uint32_t filter_run(const struct sock_fprog *filter, const struct architecture *at,
                           const struct seccomp_data *data)
{
	uint32_t words[16] = { (uint32_t) data->nr, data->arch }, a = 0;

	for (unsigned i = 0; i < 6; i++) {
		words[4 + 2 * i + at->big_endian] = (uint32_t) data->args[i];
		words[4 + 2 * i + !at->big_endian] = (uint32_t) (data->args[i] >> 32);
	}
	for (unsigned pc = 0; pc < filter->len;) {
		struct sock_filter f = filter->filter[pc++];
		bool jump;

		if (at->big_endian != (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)) {
			f.code = bswap_16(f.code);
			f.k = bswap_32(f.k);
		}
		switch (f.code) {
		case BPF_LD | BPF_W | BPF_ABS: a = words[f.k / 4]; continue;
		case BPF_ALU | BPF_AND | BPF_K: a &= f.k; continue;
		case BPF_RET | BPF_K: return f.k;
		case BPF_JMP | BPF_JA: pc += f.k; continue;
		case BPF_JMP | BPF_JEQ | BPF_K: jump = a == f.k; break;
		case BPF_JMP | BPF_JGE | BPF_K: jump = a >= f.k; break;
		case BPF_JMP | BPF_JGT | BPF_K: jump = a > f.k; break;
		default: fail_msg("%s: unknown instruction %#x", at->name, f.code); return 0;
		}
		pc += jump ? f.jt : f.jf;
	}
	fail_msg("%s: the program has no end", at->name);
	return 0;
}

/* A system call that the C library makes. */
struct c_call {
	const char *name;
	unsigned where;   /* architectures on which the C library makes it */
	unsigned uses;
	uint64_t args[6];
	bool refused;
};

#define THREAD_CLONE \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS)

static const struct c_call c_calls[] = {
	{ "read", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "write", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "close", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "brk", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "exit_group", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "getrandom", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "rt_sigaction", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "rt_sigprocmask", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "rt_sigreturn", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "sigreturn", BITS_32, SANDBOX_ANY, { 0 }, false },
	{ "sched_getaffinity", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "munmap", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "mremap", EVERY, SANDBOX_ANY, { 0 }, true },
	{ "madvise", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "futex", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "futex_time64", BITS_32, SANDBOX_ANY, { 0 }, false },
	{ "clock_gettime", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "clock_gettime64", BITS_32, SANDBOX_ANY, { 0 }, false },
	{ "clock_nanosleep", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "clock_nanosleep_time64", BITS_32, SANDBOX_ANY, { 0 }, false },
	{ "poll", EVERY & ~ARM64, SANDBOX_ANY, { 0 }, false },
	{ "ppoll", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "ppoll_time64", BITS_32, SANDBOX_ANY, { 0 }, false },
	{ "mprotect", EVERY, SANDBOX_ANY, { 0, 4096, PROT_READ | PROT_WRITE }, false },
	{ "mprotect", EVERY, SANDBOX_ANY, { 0, 4096, PROT_READ | PROT_EXEC }, true },
	{ "mmap", BITS_64 & ~S390X, SANDBOX_ANY, { 0, 4096, PROT_READ | PROT_WRITE }, false },
	{ "mmap", BITS_64 & ~S390X, SANDBOX_ANY, { 0, 4096, PROT_READ | PROT_EXEC }, true },
	/* the arguments of mmap(2) are in memory, and the other registers have any values */
	{ "mmap", S390X, SANDBOX_ANY, { 4096, ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL }, false },
	{ "mmap", I386, SANDBOX_ANY, { 4096 }, true },
	{ "mmap2", BITS_32, SANDBOX_ANY, { 0, 4096, PROT_READ | PROT_WRITE }, false },
	{ "mmap2", BITS_32, SANDBOX_ANY, { 0, 4096, PROT_READ | PROT_EXEC }, true },
	{ "recvmsg", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "sendto", EVERY, SANDBOX_ANY, { 0 }, false },
	{ "accept4", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "getpeername", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "getsockname", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "getsockopt", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "setsockopt", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "recvfrom", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "sendmsg", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "shutdown", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "splice", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "pipe2", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "memfd_create", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "pread64", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "pwrite64", EVERY, SANDBOX_STREAMS, { 0 }, false },
	{ "fcntl", BITS_64, SANDBOX_STREAMS, { 0, F_SETFL }, false },
	{ "fcntl64", BITS_32, SANDBOX_STREAMS, { 0, F_SETFL }, false },
	{ "fcntl64", BITS_32, SANDBOX_STREAMS, { 0, F_SETOWN }, true },
	{ "newfstatat", BITS_64, SANDBOX_STREAMS, { 0, 0, 0, AT_EMPTY_PATH }, false },
	{ "fstat64", BITS_32, SANDBOX_STREAMS, { 0 }, false },
	{ "fstatat64", BITS_32, SANDBOX_STREAMS, { 0, 0, 0, AT_EMPTY_PATH }, false },
	{ "statx", EVERY, SANDBOX_STREAMS, { 0, 0, AT_EMPTY_PATH }, false },
	{ "statx", EVERY, SANDBOX_STREAMS, { 0 }, true },
	{ "recvmmsg", EVERY, SANDBOX_DATAGRAMS, { 0 }, false },
	{ "recvmmsg_time64", BITS_32, SANDBOX_DATAGRAMS, { 0 }, false },
	{ "sendmmsg", EVERY, SANDBOX_DATAGRAMS, { 0 }, false },
	{ "select", X86_64 | S390X, SANDBOX_SELECT, { 0 }, false },
	{ "_newselect", BITS_32, SANDBOX_SELECT, { 0 }, false },
	{ "pselect6", EVERY, SANDBOX_SELECT, { 0 }, false },
	{ "pselect6_time64", BITS_32, SANDBOX_SELECT, { 0 }, false },
	{ "epoll_create1", EVERY, SANDBOX_EPOLL, { 0 }, false },
	{ "epoll_ctl", EVERY, SANDBOX_EPOLL, { 0 }, false },
	{ "epoll_wait", EVERY & ~ARM64, SANDBOX_EPOLL, { 0 }, false },
	{ "epoll_pwait", EVERY, SANDBOX_EPOLL, { 0 }, false },
	{ "epoll_pwait2", EVERY, SANDBOX_EPOLL, { 0 }, false },
	{ "io_uring_enter", EVERY, SANDBOX_IO_URING, { 0 }, false },
	{ "io_uring_register", EVERY, SANDBOX_IO_URING, { 0, 12 }, false },
	{ "io_uring_register", EVERY, SANDBOX_IO_URING, { 0, 0 }, true },
	{ "clone", EVERY & ~S390X, SANDBOX_THREADS, { (unsigned) (THREAD_CLONE) }, false },
	{ "clone", EVERY & ~S390X, SANDBOX_THREADS, { SIGCHLD }, true },
	{ "clone",
	  EVERY & ~S390X,
	  SANDBOX_FORK,
	  { (unsigned) (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD) },
	  false },
	{ "clone", EVERY & ~S390X, SANDBOX_FORK, { (unsigned) (CLONE_NEWUSER | SIGCHLD) }, true },
	{ "clone", S390X, SANDBOX_THREADS, { 0, (unsigned) (THREAD_CLONE) }, false },
	{ "clone", S390X, SANDBOX_THREADS, { (unsigned) (THREAD_CLONE), SIGCHLD }, true },
	{ "clone",
	  S390X,
	  SANDBOX_FORK,
	  { 0, (unsigned) (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD) },
	  false },
	{ "clone", S390X, SANDBOX_FORK, { 0, (unsigned) (CLONE_NEWUSER | SIGCHLD) }, true },
	{ "clone3", EVERY, SANDBOX_THREADS, { 0 }, true },
	{ "rseq", EVERY, SANDBOX_THREADS, { 0 }, false },
	{ "set_robust_list", EVERY, SANDBOX_THREADS, { 0 }, false },
	{ "wait4", EVERY, SANDBOX_FORK, { 0 }, false },
	{ "signalfd4", EVERY, SANDBOX_FORK, { 0 }, false },
	{ "socket", EVERY, SANDBOX_STREAMS, { 0 }, true },
	{ "bind", EVERY, SANDBOX_STREAMS, { 0 }, true },
	{ "connect", EVERY, SANDBOX_STREAMS, { 0 }, true },
	{ "openat", EVERY, SANDBOX_STREAMS, { 0, 0, O_WRONLY }, true },
	{ "execve", EVERY, SANDBOX_STREAMS, { 0 }, true },
};

#define C_CALLS (sizeof c_calls / sizeof c_calls[0])

/* `multiplexed`: the call is made with socketcall(2), whose arguments a filter cannot read. */
static void check_call(const struct architecture *at, const struct c_call *call, bool multiplexed)
{
	int number = seccomp_syscall_resolve_name_arch(at->token, call->name);
	struct seccomp_data data = { .nr = number, .arch = at->token };
	struct sock_fprog *filter;
	uint32_t action;

	memcpy(data.args, call->args, sizeof data.args);
	if (multiplexed) {
		data.nr = seccomp_syscall_resolve_name_arch(at->token, "socketcall");
		memset(data.args, 0xa5, sizeof data.args); /* registers that are not arguments */
		data.args[0] = (unsigned) (-100 - number);
	}
	if (data.nr < 0)
		fail_msg("%s: %s has no number", at->name, call->name);
	assert_int_equal(sandbox_filter_make_for(&filter, call->uses, at->token), 0);
	action = filter_run(filter, at, &data);
	sandbox_filter_free(filter);
	if ((action != SECCOMP_RET_ALLOW) != call->refused)
		fail_msg("%s: %s%s with %#llx, %#llx, %#llx, %#llx is %s", at->name, call->name,
		         multiplexed ? " by socketcall" : "", (unsigned long long) data.args[0],
		         (unsigned long long) data.args[1], (unsigned long long) data.args[2],
		         (unsigned long long) data.args[3], call->refused ? "permitted" : "refused");
}

/* Run the filters of several architectures on the system calls of their C libraries, also on those with
 * 64-bit times on 32-bit architectures, and on socketcall(2). */
static void test_filters_of_architectures(void **state)
{
	const char *why;

	(void) state;
	if (!sandbox_can_filter(&why)) {
		print_message("not checked: %s\n", why);
		skip();
	}
#if defined ECHOD_FAULTS || defined ECHOD_COVERAGE || defined ECHOD_SANITIZERS
	print_message("not checked: this build permits more system calls\n");
	skip();
#endif
	for (size_t a = 0; a < sizeof architectures / sizeof architectures[0]; a++) {
		const struct architecture *at = &architectures[a];

		for (size_t i = 0; i < C_CALLS; i++) {
			int number = seccomp_syscall_resolve_name_arch(at->token, c_calls[i].name);

			if (!(c_calls[i].where & at->bit))
				continue;
			if (number == __NR_SCMP_ERROR)
				fail_msg("libseccomp does not know %s on %s", c_calls[i].name, at->name);
			check_call(at, &c_calls[i], number <= -101 && number >= -120);
		}
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manual_lists_the_calls),
		cmocka_unit_test(test_filters_are_made),
#ifdef HAVE_LIBSECCOMP
		cmocka_unit_test(test_filters_of_architectures),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
