/* SPDX-License-Identifier: ISC */
/* failing.c - let system calls fail a given number of times, and let time pass faster (LD_PRELOAD)
 *
 * The file in FAILING_CALLS, shared by all processes of the program, has two numbers for each call: how many
 * of the next calls fail, and their errno; sendmsg(2) without descriptors does not fail. The order of the
 * calls is that of CALLS in failing.py. The number of calls that waited for events follows. If FAILING_QUEUE
 * is a number and not 0, the queue between workers, for which the program requests the largest send buffer,
 * has a send buffer of that size. If FAILING_SPEED is a number, the monotonic clocks advance that number of
 * times as fast, and the time-outs of all calls that wait are shorter by that factor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum call { ACCEPT4, FORK, PTHREAD_CREATE, RECVMSG, SENDMSG, MEMFD_CREATE, MMAP, CALLS };

static struct shared {
	struct {
		_Atomic int left, error;
	} calls[CALLS];
	_Atomic unsigned waits;
} *shared;

static int speed = 1;

__attribute__((constructor)) static void open_calls(void)
{
	const char *path = getenv("FAILING_CALLS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map = fd < 0
	                  ? MAP_FAILED
	                  : (void *) syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		abort();
	shared = map;
	close(fd);
	if (getenv("FAILING_SPEED"))
		speed = atoi(getenv("FAILING_SPEED"));
}

/* The errno with which this call must fail, or 0. */
static int fails(enum call call)
{
	int left = shared ? atomic_load(&shared->calls[call].left) : 0;

	while (left > 0)
		if (atomic_compare_exchange_weak(&shared->calls[call].left, &left, left - 1))
			return errno = atomic_load(&shared->calls[call].error);
	return 0;
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	return fails(ACCEPT4) ? -1
	                      : ((int (*)(int, struct sockaddr *, socklen_t *,
	                                  int)) dlsym(RTLD_NEXT, "accept4"))(fd, address, length, flags);
}

pid_t fork(void)
{
	return fails(FORK) ? -1 : ((pid_t(*)(void)) dlsym(RTLD_NEXT, "fork"))();
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *argument)
{
	int error = fails(PTHREAD_CREATE);

	return error ? error
	             : ((int (*)(pthread_t *, const pthread_attr_t *, void *(*) (void *),
	                         void *)) dlsym(RTLD_NEXT, "pthread_create"))(thread, attr, run, argument);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return fails(RECVMSG)
	             ? -1
	             : ((ssize_t(*)(int, struct msghdr *, int)) dlsym(RTLD_NEXT, "recvmsg"))(fd, message,
	                                                                                     flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return message->msg_controllen > 0 && fails(SENDMSG)
	             ? -1
	             : ((ssize_t(*)(int, const struct msghdr *, int)) dlsym(RTLD_NEXT,
	                                                                    "sendmsg"))(fd, message, flags);
}

int memfd_create(const char *name, unsigned flags)
{
	return fails(MEMFD_CREATE)
	             ? -1
	             : ((int (*)(const char *, unsigned)) dlsym(RTLD_NEXT, "memfd_create"))(name, flags);
}

static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return fails(MMAP) ? MAP_FAILED
	                   : ((void *(*) (void *, size_t, int, int, int,
	                                  off_t)) dlsym(RTLD_NEXT, "mmap"))(address, length, protection,
	                                                                    flags, fd, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return map(address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return map(address, length, protection, flags, fd, (off_t) offset);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	const char *queue = getenv("FAILING_QUEUE");
	int wanted = queue ? atoi(queue) : 0;

	if (wanted > 0 && level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_SNDBUFFORCE) &&
	    size == sizeof(int) && *(const int *) value == 1 << 30)
		value = &wanted;
	return (int) syscall(SYS_setsockopt, fd, level, name, value, size);
}

/* --- time -------------------------------------------------------------------------------- */

#define NSEC_PER_SEC INT64_C(1000000000)

struct io_uring;
struct io_uring_cqe;
struct __kernel_timespec {
	int64_t tv_sec;
	long long tv_nsec;
};

int clock_gettime(clockid_t id, struct timespec *time)
{
	int r = ((int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime"))(id, time);
	int64_t nsec;

	if (r == 0 && (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE)) {
		nsec = time->tv_nsec * (int64_t) speed;
		time->tv_sec = time->tv_sec * speed + (time_t) (nsec / NSEC_PER_SEC);
		time->tv_nsec = (long) (nsec % NSEC_PER_SEC);
	}
	return r;
}

static void count_wait(void)
{
	if (shared)
		atomic_fetch_add(&shared->waits, 1);
}

/* Milliseconds, rounded up: a program that wakes too early would wait once more. */
static int shorter(int timeout)
{
	return timeout <= 0 ? timeout : (timeout - 1) / speed + 1;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	count_wait();
	return ((int (*)(struct pollfd *, nfds_t, int)) dlsym(RTLD_NEXT, "poll"))(fds, count,
	                                                                          shorter(timeout));
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
	count_wait();
	return ((int (*)(int, struct epoll_event *, int, int)) dlsym(RTLD_NEXT, "epoll_wait"))(
		fd, events, count, shorter(timeout));
}

int select(int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *timeout)
{
	int64_t usec = timeout ? (timeout->tv_sec * INT64_C(1000000) + timeout->tv_usec + speed - 1) / speed
	                       : 0;
	struct timeval less = { .tv_sec = (time_t) (usec / 1000000),
		                .tv_usec = (suseconds_t) (usec % 1000000) };

	count_wait();
	return ((int (*)(int, fd_set *, fd_set *, fd_set *, struct timeval *)) dlsym(
		RTLD_NEXT, "select"))(count, in, out, other, timeout ? &less : NULL);
}

/* liburing(3); tests do not need its header */
int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned count,
                                     struct __kernel_timespec *timeout, sigset_t *mask)
{
	int64_t nsec = timeout ? (timeout->tv_sec * NSEC_PER_SEC + timeout->tv_nsec + speed - 1) / speed : 0;
	struct __kernel_timespec less = { .tv_sec = nsec / NSEC_PER_SEC, .tv_nsec = nsec % NSEC_PER_SEC };

	count_wait();
	return ((int (*)(struct io_uring *, struct io_uring_cqe **, unsigned, struct __kernel_timespec *,
	                 sigset_t *)) dlsym(RTLD_NEXT, "io_uring_submit_and_wait_timeout"))(
		ring, cqe, count, timeout ? &less : NULL, mask);
}
