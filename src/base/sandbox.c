/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- privileges ------------------------------------------------------------------------ */

static bool has_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { 0 };
	uint32_t any = 0;

	if (syscall(SYS_capget, &header, sets) < 0)
		return true;
	for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		any |= sets[i].effective | sets[i].permitted | sets[i].inheritable;
	return any != 0;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* a unit without capabilities need not permit the calls below */
	if (!has_capabilities())
		return 0;

	/* only a process with CAP_SETPCAP may empty the bounding set; without capabilities and with
	 * no_new_privs it is of no use */
	for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
		if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0)
			break;
	(void) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

int sandbox_enter(const struct sock_fprog *filter)
{
	int r = drop_capabilities();

	if (r < 0)
		return r;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	/* by prctl(2): the unit does not permit seccomp(2) */
	if (filter && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter, 0, 0) < 0)
		return -errno;
	return 0;
}

/* --- the table ------------------------------------------------------------------------- */

#ifdef HAVE_LIBSECCOMP

#include <fcntl.h>
#include <malloc.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/log.h"

/* Most conditions on the arguments of one system call; it is permitted where one of them holds. */
#define CONDITIONS_MAX 8

struct call {
	const char *name;
	unsigned uses;                            /* enum sandbox_use: any of them needs it */
	const char *note; /* the conditions, for the manual; NULL: permitted with any arguments */
	struct scmp_arg_cmp only[CONDITIONS_MAX]; /* ended by an element without operation */
};

#define CALL(call, needed) { .name = (call), .uses = (needed) }
#define CALL_IF(call, needed, text, ...) \
	{ .name = (call), .uses = (needed), .note = (text), .only = { __VA_ARGS__ } }

#define EQUALS(argument, value) { argument, SCMP_CMP_EQ, (scmp_datum_t) (value), 0 }
#define MASKED(argument, mask, value) \
	{ argument, SCMP_CMP_MASKED_EQ, (scmp_datum_t) (mask), (scmp_datum_t) (value) }

/* A thread shares all with its process; a forked process shares nothing and is a child of this one. */
#define THREAD_FLAGS \
	((unsigned) (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM))
#define FORK_FLAGS ((unsigned) ~(CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | 0xff))

#define FCNTL_COMMANDS \
	EQUALS(1, F_GETFD), EQUALS(1, F_SETFD), EQUALS(1, F_GETFL), EQUALS(1, F_SETFL), \
		EQUALS(1, F_SETPIPE_SZ), EQUALS(1, F_DUPFD_CLOEXEC), EQUALS(1, F_GET_SEALS)

/* Commands of io_uring_register(2), named here because headers of older kernels and systems without liburing
 * do not have them. With bit 31 the ring is named by its registered index. Rings are made, and their
 * restrictions registered, before the filter is installed. */
enum { RING_ENABLE = 12, RING_FDS_REGISTER = 20, RING_FDS_UNREGISTER = 21 };

#define RING_COMMANDS \
	MASKED(1, 0x7fffffff, RING_ENABLE), MASKED(1, 0x7fffffff, RING_FDS_REGISTER), \
		MASKED(1, 0x7fffffff, RING_FDS_UNREGISTER)

/* Names are those of libseccomp; a name that the architecture does not have is ignored. */
static const struct call calls[] = {
	/* the C library: memory, threads, time, the end */
	CALL("brk", SANDBOX_ANY),
	CALL("clock_gettime", SANDBOX_ANY),
	CALL("clock_gettime64", SANDBOX_ANY),
	CALL("clock_nanosleep", SANDBOX_ANY),
	CALL("clock_nanosleep_time64", SANDBOX_ANY),
	CALL("close", SANDBOX_ANY),
	CALL("exit", SANDBOX_ANY),
	CALL("exit_group", SANDBOX_ANY),
	CALL("futex", SANDBOX_ANY),
	CALL("futex_time64", SANDBOX_ANY),
	CALL("getpid", SANDBOX_ANY),
	CALL("getrandom", SANDBOX_ANY),
	CALL("gettid", SANDBOX_ANY),
	CALL("gettimeofday", SANDBOX_ANY),
	CALL("madvise", SANDBOX_ANY),
	CALL_IF("mmap", SANDBOX_ANY, "without PROT_EXEC but on s390x, not on i386", MASKED(2, PROT_EXEC, 0)),
	CALL_IF("mmap2", SANDBOX_ANY, "without PROT_EXEC", MASKED(2, PROT_EXEC, 0)),
	CALL_IF("mprotect", SANDBOX_ANY, "without PROT_EXEC", MASKED(2, PROT_EXEC, 0)),
	CALL("munmap", SANDBOX_ANY),
	CALL("nanosleep", SANDBOX_ANY),
	CALL("restart_syscall", SANDBOX_ANY),
	CALL("rt_sigaction", SANDBOX_ANY),
	CALL("rt_sigprocmask", SANDBOX_ANY),
	CALL("rt_sigreturn", SANDBOX_ANY),
	CALL("sigreturn", SANDBOX_ANY),
	CALL("sched_getaffinity", SANDBOX_ANY),
	CALL("sched_yield", SANDBOX_ANY),

	/* the log relay, the wake-ups of other workers, the stop request, and wake-ups that lead to nothing
	 * (idle.h) */
	CALL("poll", SANDBOX_ANY),
	CALL("ppoll", SANDBOX_ANY),
	CALL("ppoll_time64", SANDBOX_ANY),
	CALL("read", SANDBOX_ANY),
	CALL("recvmsg", SANDBOX_ANY),
	CALL_IF("sendto", SANDBOX_ANY, "without an address but on i386 and s390x", EQUALS(4, 0)),
	CALL("write", SANDBOX_ANY),

	/* connections: accept, echo, hand over, close */
	CALL("accept4", SANDBOX_STREAMS),
	CALL_IF("fcntl", SANDBOX_STREAMS, "flags, seals and pipe size", FCNTL_COMMANDS),
	CALL_IF("fcntl64", SANDBOX_STREAMS, "flags, seals and pipe size", FCNTL_COMMANDS),
	CALL("fstat", SANDBOX_STREAMS),
	CALL("fstat64", SANDBOX_STREAMS),
	CALL("getpeername", SANDBOX_STREAMS),
	CALL("getsockname", SANDBOX_STREAMS),
	CALL("getsockopt", SANDBOX_STREAMS | SANDBOX_DATAGRAMS),
	CALL_IF("ioctl", SANDBOX_ANY, "FIONREAD, SIOCOUTQ, SIOCGIFNAME", EQUALS(1, FIONREAD),
	        EQUALS(1, SIOCOUTQ), EQUALS(1, SIOCGIFNAME)),
	CALL("memfd_create", SANDBOX_STREAMS),
	CALL_IF("newfstatat", SANDBOX_STREAMS, "of a descriptor", EQUALS(3, AT_EMPTY_PATH)),
	CALL_IF("fstatat64", SANDBOX_STREAMS, "of a descriptor", EQUALS(3, AT_EMPTY_PATH)),
	CALL("pipe2", SANDBOX_STREAMS),
	CALL("pread64", SANDBOX_STREAMS),
	CALL("pwrite64", SANDBOX_STREAMS),
	CALL("recvfrom", SANDBOX_STREAMS),
	CALL("recv", SANDBOX_STREAMS),
	CALL("send", SANDBOX_ANY),
	CALL("sendmsg", SANDBOX_STREAMS | SANDBOX_DATAGRAMS),
	CALL("setsockopt", SANDBOX_STREAMS | SANDBOX_DATAGRAMS),
	CALL("shutdown", SANDBOX_STREAMS),
	CALL("splice", SANDBOX_STREAMS),
	CALL_IF("statx", SANDBOX_STREAMS, "of a descriptor", MASKED(2, AT_EMPTY_PATH, AT_EMPTY_PATH)),

	/* datagrams */
	CALL("recvmmsg", SANDBOX_DATAGRAMS),
	CALL("recvmmsg_time64", SANDBOX_DATAGRAMS),
	CALL("sendmmsg", SANDBOX_DATAGRAMS),

	/* waiting for many descriptors */
	CALL("_newselect", SANDBOX_SELECT),
	CALL("pselect6", SANDBOX_SELECT),
	CALL("pselect6_time64", SANDBOX_SELECT),
	CALL("select", SANDBOX_SELECT),
	CALL("epoll_create1", SANDBOX_EPOLL),
	CALL("epoll_ctl", SANDBOX_EPOLL),
	CALL("epoll_pwait", SANDBOX_EPOLL),
	CALL("epoll_pwait2", SANDBOX_EPOLL),
	CALL("epoll_wait", SANDBOX_EPOLL),
	CALL("io_uring_enter", SANDBOX_IO_URING),
	CALL_IF("io_uring_register", SANDBOX_IO_URING, "to enable a ring and to register its descriptor",
	        RING_COMMANDS),

	/* threads and processes; clone3(2), whose flags no filter can see, is answered ENOSYS, and libc falls
	 * back to clone(2) */
	CALL_IF("clone", SANDBOX_THREADS, "for a thread", MASKED(0, THREAD_FLAGS, THREAD_FLAGS)),
	CALL_IF("clone", SANDBOX_FORK, "for a child process", MASKED(0, FORK_FLAGS, 0)),
	CALL("eventfd2", SANDBOX_THREADS),
	CALL("rseq", SANDBOX_THREADS | SANDBOX_FORK),
	CALL("set_robust_list", SANDBOX_THREADS | SANDBOX_FORK),
	CALL("signalfd4", SANDBOX_FORK),
	CALL("wait4", SANDBOX_FORK),
	CALL("waitpid", SANDBOX_FORK),

#ifdef ECHOD_FAULTS
	/* fault_hostile() reads /proc/self/maps and ends itself */
	CALL_IF("kill", SANDBOX_ANY, "with SIGKILL", EQUALS(1, SIGKILL)),
	CALL("lseek", SANDBOX_ANY),
	CALL_IF("openat", SANDBOX_ANY, "for reading", EQUALS(2, O_RDONLY | O_CLOEXEC)),
	CALL("pause", SANDBOX_ANY),
	CALL("unlink", SANDBOX_ANY),
	CALL("unlinkat", SANDBOX_ANY),
#endif
#if defined ECHOD_COVERAGE || defined ECHOD_SANITIZERS
	/* counters are written to files; reports read the program and /proc */
	CALL("fcntl", SANDBOX_ANY),
	CALL("ftruncate", SANDBOX_ANY),
	CALL("fstat", SANDBOX_ANY),
	CALL("getppid", SANDBOX_ANY),
	CALL("lseek", SANDBOX_ANY),
	CALL("mkdir", SANDBOX_ANY),
	CALL("newfstatat", SANDBOX_ANY),
	CALL("openat", SANDBOX_ANY),
	CALL("readlink", SANDBOX_ANY),
	CALL("stat", SANDBOX_ANY),
#endif
#ifdef ECHOD_SANITIZERS
	CALL("clone", SANDBOX_ANY),
	CALL("getrlimit", SANDBOX_ANY),
	CALL("kill", SANDBOX_ANY),
	CALL("mmap", SANDBOX_ANY),
	CALL("mprotect", SANDBOX_ANY),
	CALL("pipe", SANDBOX_ANY),
	CALL("prctl", SANDBOX_ANY),
	CALL("prlimit64", SANDBOX_ANY),
	CALL("process_vm_readv", SANDBOX_ANY),
	CALL("ptrace", SANDBOX_ANY),
	CALL("sigaltstack", SANDBOX_ANY),
	CALL("tgkill", SANDBOX_ANY),
	CALL("uname", SANDBOX_ANY),
	CALL("wait4", SANDBOX_ANY),
#endif
};

#define CALLS (sizeof calls / sizeof calls[0])

/* No library makes these calls by itself: an attempt is an attack, and ends the process. */
static const char *const fatal[] = { "execve", "execveat", "ptrace", "process_vm_readv",
	                             "process_vm_writev" };

#define FATAL (sizeof fatal / sizeof fatal[0])

bool sandbox_can_filter(const char **why)
{
	/* a kernel that can filter looks for the filter */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL, 0, 0) == 0 || errno == EFAULT || errno == EACCES)
		return true;
	*why = "this kernel cannot filter system calls (CONFIG_SECCOMP_FILTER)";
	return false;
}

bool sandbox_permits(const char *name, unsigned uses)
{
	bool permitted = false;

	for (size_t i = 0; i < CALLS; i++)
		permitted |= calls[i].uses & uses && strcmp(calls[i].name, name) == 0;
	return permitted;
}

/* Whether the call may be made by socketcall(2), as on i386 and s390: its arguments are in memory, which no
 * filter sees. libseccomp gives these calls the numbers -101 to -120. */
static bool is_multiplexed(const char *name, uint32_t architecture)
{
	int number = seccomp_syscall_resolve_name_arch(architecture, name);

	return number <= -101 && number >= -120;
}

static bool is_s390(uint32_t architecture)
{
	return architecture == SCMP_ARCH_S390X || architecture == SCMP_ARCH_S390;
}

/* Whether the system call's arguments are in memory, where no filter sees them. mmap(2) of i386 and s390 has
 * a pointer to its arguments; its other registers have any values. */
static bool has_hidden_arguments(const char *name, uint32_t architecture)
{
	return is_multiplexed(name, architecture) ||
	       (strcmp(name, "mmap") == 0 && (is_s390(architecture) || architecture == SCMP_ARCH_X86));
}

/* Whether no C library makes the call on this architecture: on i386 they call mmap2(2). */
static bool is_obsolete(const char *name, uint32_t architecture)
{
	return strcmp(name, "mmap") == 0 && architecture == SCMP_ARCH_X86;
}

/* A condition of the table. On s390 the flags of clone(2) are its second argument. */
static struct scmp_arg_cmp condition_for(const struct call *call, unsigned i, uint32_t architecture)
{
	struct scmp_arg_cmp condition = call->only[i];

	if (strcmp(call->name, "clone") == 0 && is_s390(architecture))
		condition.arg = 1;
	return condition;
}

/* Permit one call, under each of its conditions; a system call that the architecture does not have is
 * ignored. */
static int rule_add(scmp_filter_ctx context, const struct call *call, uint32_t architecture)
{
	int number = seccomp_syscall_resolve_name(call->name), r = 0;

	if (number == __NR_SCMP_ERROR || is_obsolete(call->name, architecture))
		return 0;
	if (!call->note || has_hidden_arguments(call->name, architecture))
		return seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0);
	for (unsigned i = 0; i < CONDITIONS_MAX && call->only[i].op && r == 0; i++) {
		struct scmp_arg_cmp condition = condition_for(call, i, architecture);

		r = seccomp_rule_add_array(context, SCMP_ACT_ALLOW, number, 1, &condition);
	}
	return r;
}

static int rules_add(scmp_filter_ctx context, unsigned uses, uint32_t architecture)
{
	int r = 0;

	for (size_t i = 0; i < CALLS && r == 0; i++)
		if (calls[i].uses & uses)
			r = rule_add(context, &calls[i], architecture);
	for (size_t i = 0; i < FATAL && r == 0; i++)
		if (!sandbox_permits(fatal[i], uses))
			r = seccomp_rule_add(context, SCMP_ACT_KILL_PROCESS,
			                     seccomp_syscall_resolve_name(fatal[i]), 0);
	/* unknown to libseccomp before 2.4 */
	if (r == 0 && seccomp_syscall_resolve_name("clone3") != __NR_SCMP_ERROR)
		r = seccomp_rule_add(context, SCMP_ACT_ERRNO(ENOSYS), seccomp_syscall_resolve_name("clone3"),
		                     0);
	return r;
}

/* Read the program that libseccomp has written to the file `fd`. */
static int program_read(struct sock_fprog **filter, int fd)
{
	struct stat st;
	size_t size;

	if (fstat(fd, &st) < 0)
		return -errno;
	size = (size_t) st.st_size;
	*filter = malloc(sizeof **filter + size);
	if (!*filter)
		return -ENOMEM;
	(*filter)->len = (unsigned short) (size / sizeof(struct sock_filter));
	(*filter)->filter = (struct sock_filter *) (void *) (*filter + 1);
	if (pread(fd, (*filter)->filter, size, 0) == (ssize_t) size)
		return 0;
	free(*filter);
	*filter = NULL;
	return -EIO;
}

static int architecture_set(scmp_filter_ctx context, uint32_t architecture)
{
	int r;

	if (architecture == seccomp_arch_native())
		return 0;
	/* first: a filter has architectures of one byte order */
	r = seccomp_arch_remove(context, SCMP_ARCH_NATIVE);
	return r < 0 ? r : seccomp_arch_add(context, architecture);
}

int sandbox_filter_make(struct sock_fprog **filter, unsigned uses)
{
	return sandbox_filter_make_for(filter, uses, seccomp_arch_native());
}

int sandbox_filter_make_for(struct sock_fprog **filter, unsigned uses, uint32_t architecture)
{
	scmp_filter_ctx context;
	const char *why;
	int fd, r;

	*filter = NULL;
	if (!sandbox_can_filter(&why))
		return 0;
	/* libseccomp would ask the kernel for SCMP_ACT_KILL_PROCESS with seccomp(2), which the unit does not
	 * permit; a kernel before 4.14 ends the thread instead */
	(void) seccomp_api_set(3);
	context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!context)
		return -ENOMEM;
	fd = memfd_create("echod-filter", MFD_CLOEXEC);
	r = fd < 0 ? -errno : 0;
	if (r == 0)
		r = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (r == 0)
		r = architecture_set(context, architecture);
	if (r == 0)
		r = rules_add(context, SANDBOX_ANY | uses, architecture);
	if (r == 0)
		r = seccomp_export_bpf(context, fd);
	if (r == 0)
		r = program_read(filter, fd);
	if (fd >= 0)
		close(fd);
	seccomp_release(context);
	/* the memory that libseccomp has freed would be memory of each worker process, and fork(2) would be
	 * slower */
	malloc_trim(0);
	return r;
}

void sandbox_filter_free(struct sock_fprog *filter)
{
	free(filter);
}

/* --- the manual, and tests ------------------------------------------------------------- */

static const struct {
	unsigned use;
	const char *title;
} titles[] = {
	{ SANDBOX_ANY, "every worker process" },
	{ SANDBOX_STREAMS, "all models, for connections" },
	{ SANDBOX_DATAGRAMS, "processes that answer datagrams" },
	{ SANDBOX_SELECT, "select" },
	{ SANDBOX_EPOLL, "all models but select and poll" },
	{ SANDBOX_IO_URING, "io_uring" },
	{ SANDBOX_THREADS, "thread, and all models with more than one thread" },
	{ SANDBOX_FORK, "process" },
};

/* Longest line of the table. */
#define LINE_MAX_LENGTH 100

static void print_calls(FILE *out, unsigned use)
{
	char text[128];
	int column = 0;

	for (size_t i = 0; i < CALLS; i++) {
		int n;

		if (!(calls[i].uses & use))
			continue;
		n = snprintf(text, sizeof text, "%s%s%s%s", calls[i].name, calls[i].note ? " (" : "",
		             calls[i].note ? calls[i].note : "", calls[i].note ? ")" : "");
		if (column > 0 && column + n + 3 > LINE_MAX_LENGTH) {
			fputs(",\n", out);
			column = 0;
		} else if (column > 0) {
			column += fprintf(out, ", ");
		}
		column += fprintf(out, "%s", text);
	}
}

void sandbox_print(FILE *out)
{
	for (size_t t = 0; t < sizeof titles / sizeof titles[0]; t++) {
		fprintf(out, ".It %s\n", titles[t].title);
		print_calls(out, titles[t].use);
		fputs("\n", out);
	}
}

#ifdef ECHOD_FAULTS
static bool is_fatal(const char *name)
{
	bool found = false;

	for (size_t i = 0; i < FATAL; i++)
		found |= strcmp(fatal[i], name) == 0;
	return found;
}

/* Whether a system call that returned `r` was refused by the filter. */
static bool was_refused(long r, const char *name)
{
	if (r < 0 && (errno == EPERM || (errno == ENOSYS && strcmp(name, "clone3") == 0)))
		return true;
	log_event(LOG_ERR, EVENT_INTERNAL, "System call %s is not refused: %s", name,
	          r < 0 ? strerror(errno) : "it succeeded");
	return false;
}

/* Call it with arguments that no system call accepts; a filter refuses it before they are looked at. */
static bool try_one(int number, const char *name)
{
	errno = 0;
	return was_refused(syscall(number, -1L, -1L, -1L, -1L, -1L, -1L), name);
}

#if defined ECHOD_SANITIZERS || defined ECHOD_COVERAGE
/* Such a build permits these calls with all arguments. */
static unsigned try_arguments(unsigned uses)
{
	(void) uses;
	return 0;
}
#else
/* Permitted calls with arguments that are not. */
static unsigned try_arguments(unsigned uses)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX };
	unsigned refused = 0;
	void *memory;
	long r;

	if (!is_s390(seccomp_arch_native())) {
		memory = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		refused += was_refused(memory == MAP_FAILED ? -1 : 0, "mmap with PROT_EXEC");
		if (memory != MAP_FAILED)
			munmap(memory, 4096);
	}
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	refused += was_refused(mprotect(memory, 4096, PROT_READ | PROT_EXEC), "mprotect with PROT_EXEC");
	munmap(memory, 4096);
	if (!is_multiplexed("sendto", seccomp_arch_native()))
		refused += was_refused(sendto(0, "", 1, 0, (const struct sockaddr *) &address,
		                              sizeof address),
		                       "sendto with an address");
	refused += was_refused(ioctl(0, TIOCSTI, ""), "ioctl with TIOCSTI");
	if (uses & SANDBOX_STREAMS)
		refused += was_refused(fcntl(0, F_SETOWN, getpid()), "fcntl with F_SETOWN");
	if (!(uses & (SANDBOX_THREADS | SANDBOX_FORK)))
		return refused;
#if !defined __s390__ && !defined __s390x__ /* another order of arguments */
	r = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
	if (r == 0)
		_exit(0);
	refused += was_refused(r, "clone with CLONE_NEWUSER");
	r = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
	if (r == 0)
		_exit(0);
	refused += was_refused(r, "clone with CLONE_PARENT");
#endif
	return refused;
}
#endif

void sandbox_try_forbidden(const char *name, unsigned uses)
{
	unsigned refused = 0;
	int number;

	uses |= SANDBOX_ANY;
	if (strcmp(name, "all") != 0) {
		if (try_one(seccomp_syscall_resolve_name(name), name))
			log_event(LOG_NOTICE, EVENT_INTERNAL, "System call %s was refused", name);
		return;
	}
	for (number = 0; number < 1024; number++) {
		char *found = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);

		if (found && !sandbox_permits(found, uses) && !is_fatal(found))
			refused += try_one(number, found);
		free(found);
	}
	refused += try_arguments(uses);
	log_event(LOG_NOTICE, EVENT_INTERNAL, "%u forbidden system calls were refused", refused);
}
#endif

#else

bool sandbox_can_filter(const char **why)
{
	*why = "echod was built without libseccomp";
	return false;
}

int sandbox_filter_make(struct sock_fprog **filter, unsigned uses)
{
	(void) uses;
	*filter = NULL;
	return 0;
}

int sandbox_filter_make_for(struct sock_fprog **filter, unsigned uses, uint32_t architecture)
{
	(void) architecture;
	return sandbox_filter_make(filter, uses);
}

void sandbox_filter_free(struct sock_fprog *filter)
{
	free(filter);
}

bool sandbox_permits(const char *name, unsigned uses)
{
	(void) name;
	(void) uses;
	return true;
}

void sandbox_print(FILE *out)
{
	(void) out;
}

#ifdef ECHOD_FAULTS
void sandbox_try_forbidden(const char *name, unsigned uses)
{
	(void) name;
	(void) uses;
}
#endif

#endif
