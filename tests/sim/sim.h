/* SPDX-License-Identifier: ISC */
/* sim.h - a simulated kernel in one thread: clock, descriptors, readiness, failing calls, clients
 *
 * The test program is linked with libechod.a and the linker's option --wrap, so that the system calls of the
 * daemon's code arrive here (calls.c) and the code itself is unchanged. Each worker runs on a fiber: a stack
 * of its own, of which one runs at a time. A call that waits runs the simulation forward until its fiber is
 * ready. The clock jumps to the next event. Every choice comes from one seed, so a run can be repeated.
 *
 *   fiber.c    random numbers, clock, events, fibers, faults, report of a failure
 *   file.c     open files, descriptor tables, readiness, epoll sets
 *   stream.c   connections: the socket of the daemon, the network, and the client
 *   calls.c    the replaced functions
 *   admission.c net/admission.c with shared counts that change meanwhile
 *   test_sim.c crews of workers, operator, checks
 */
#ifndef ECHOD_TESTS_SIM_H
#define ECHOD_TESTS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

#include "base/list.h"

/* The allocations of the simulation itself do not fail. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
#define malloc __real_malloc
#define calloc __real_calloc
#define realloc __real_realloc

#define MSEC INT64_C(1000)
#define SEC INT64_C(1000000)

struct crew;
struct file;
struct process;
struct stream;

/* --- fiber.c ---------------------------------------------------------------------------- */

/* Calls that can fail. The probability of each is chosen for each episode. */
enum fault {
	FAULT_INTERRUPTED,   /* EINTR of a waiting call, or of recv and send */
	FAULT_WAIT_MEMORY,   /* ENOMEM of poll and select */
	FAULT_AGAIN,         /* EAGAIN though the descriptor is ready; fewer bytes than possible */
	FAULT_ACCEPT,        /* EMFILE, ENFILE, ENOMEM, ENOBUFS of accept4 */
	FAULT_ACCEPT_CLIENT, /* ECONNABORTED and other errors of one client, which is gone */
	FAULT_STREAM,        /* an error of the connection from recv, send and splice */
	FAULT_EPOLL,         /* ENOMEM, ENOSPC of epoll_ctl that adds */
	FAULT_PIPE,          /* EMFILE of pipe2 */
	FAULT_SPLICE,        /* EINVAL of splice */
	FAULT_MEMORY,        /* ENOMEM of malloc, calloc, realloc, mmap */
	FAULT_SEND_FD,       /* EAGAIN, ETOOMANYREFS, ENOMEM of sendmsg with descriptors */
	FAULT_MEMFILE,       /* EMFILE of memfd_create */
	FAULT_THREAD,        /* EAGAIN of pthread_create */
	FAULTS
};

enum event_kind {
	EVENT_NONE,
	EVENT_CLIENT, /* the next action of a client */
	EVENT_READ,   /* a client reads */
	EVENT_UP,     /* the network delivers to the daemon */
	EVENT_DOWN,   /* the network delivers to the client */
	EVENT_AUDIT,  /* check that an idle connection was ended, or reset one whose client has vanished */
	EVENT_ARRIVE, /* a new client connects */
	EVENT_OPERATOR,
	EVENT_HEARTBEAT
};

struct sim {
	uint64_t seed;
	uint64_t state;          /* of the random numbers */
	int64_t now;             /* microseconds; CLOCK_MONOTONIC */
	int64_t tick;            /* of CLOCK_MONOTONIC_COARSE */
	unsigned call_usec;      /* maximum time of one call */
	unsigned preempt;        /* probability, per million, that another fiber runs at a call */
	unsigned late;           /* probability, per million, that an event comes before a ready fiber runs */
	unsigned access;         /* probability, per million, that another fiber runs at sim_access() */
	bool preempting;         /* another fiber may run at a call */
	bool locked;             /* no other fiber may run */
	bool running;            /* calls of libechod.a are simulated */
	unsigned fault[FAULTS];  /* probability, per million */
	uint64_t faults[FAULTS]; /* number of injected faults */
	int64_t failed_at;       /* last failure of a call that makes accepting pause */
	int64_t queue_full_at;   /* last time at which the queue had no space */
	uint64_t excuses;        /* injected failures of which each may end one connection */
	/* totals of all episodes: actions of clients, network and operator; waits that timed out; system
	 * calls; changes of the running fiber */
	uint64_t events, timeouts, calls, switches;
};

extern struct sim sim;

uint64_t sim_random(void);
/* A number from 0 to `limit` - 1. */
uint64_t sim_below(uint64_t limit);
/* A number from `low` to `high`, small ones more often: the logarithm is uniform. */
uint64_t sim_spread(uint64_t low, uint64_t high);
bool sim_chance(unsigned per_million);
bool sim_fault(enum fault fault);

/* Begin an episode. */
void sim_begin(uint64_t seed);
/* Free everything; no fiber may run. */
void sim_end(void);

/* Report a failed check, with the seed and the last events, and exit(3). */
void __attribute__((noreturn, format(printf, 1, 2))) sim_fail(const char *format, ...);
/* Note an event for the report of a failure. `what` must be a literal. */
void sim_note(const char *what, int64_t a, int64_t b);

/* Add an event. `generation` is passed to its handler, because the memory of the object may have been used
 * again by then. */
void sim_at(int64_t time, enum event_kind kind, void *object, uint32_t generation);

struct fiber {
	struct process *process;
	void *context;    /* for the user */
	uint64_t wait;    /* number of the present wait */
	int64_t deadline; /* of the present wait */
	bool waiting, runnable, ended, timed_out;
	uint64_t progress;      /* number of changes that its calls have made */
	uint64_t progress_seen; /* at the end of the last wait */
	unsigned idle;          /* waits in a row that ended at once, though nothing had changed */
	unsigned number;
	unsigned accepted;       /* connections since its last wait */
	int64_t paused_until;    /* it must not accept before, because accept4 has failed */
	bool steady;             /* its calls may fail: it has reported that it is ready */
	struct machine *machine; /* stack and registers */
	void (*main)(struct fiber *fiber);
	void *argument;
};

struct fiber *fiber_self(void);
struct fiber *fiber_start(struct process *process, void (*main)(struct fiber *), void *argument);
/* Wait until fiber_wake() or `deadline` (INT64_MAX: none). Returns false after the deadline. */
bool fiber_wait(int64_t deadline);
void fiber_wake(struct fiber *fiber);
/* A call has begun: time passes, and other fibers may run. */
void sim_call(void);
/* A count that workers share is read or written next: other fibers may run before. */
void sim_access(void);
void sim_lock(bool locked);
/* Let another fiber run that is ready. */
void sim_yield(void);
/* End a waiting call. Fails where many in a row returned at once while the fiber changed nothing. */
void fiber_check_spin(void);
static inline void fiber_progress(struct fiber *fiber)
{
	fiber->progress++;
}

/* --- file.c ----------------------------------------------------------------------------- */

enum file_kind {
	FILE_LISTENER,
	FILE_STREAM,
	FILE_QUEUE, /* one end of a SOCK_SEQPACKET pair */
	FILE_PIPE,  /* both ends of a pipe: the file has two references */
	FILE_EVENT, /* eventfd(2) */
	FILE_EPOLL,
	FILE_STOP,   /* reading end of a pipe, at end of file when the worker must stop */
	FILE_READY,  /* writing end of the pipe to the supervisor */
	FILE_MEMORY, /* memfd_create(2) */
};

struct segment {
	struct stream *stream;
	uint64_t at;
	uint32_t size;
};

#define PIPE_SLOTS 256
#define MESSAGE_MAX 192

struct message {
	struct list link;
	uint8_t data[MESSAGE_MAX];
	size_t size;
	struct file *files[2];
	unsigned count;
};

struct file {
	enum file_kind kind;
	unsigned refs;
	struct waiter *waiters;
	size_t waiter_count, waiter_size;
	struct list items; /* registrations in epoll sets */
	union {
		struct {
			struct list backlog; /* of streams */
			unsigned waiting, limit, family;
		} listener;
		struct stream *stream;
		struct {
			struct list messages;
			struct file *peer; /* NULL: closed */
			unsigned count, limit;
		} queue;
		struct {
			struct segment segments[PIPE_SLOTS];
			unsigned first, count, slots;
		} pipe;
		struct {
			uint64_t counter;
			const struct fiber *writer; /* the last one */
		} eventfd;
		struct {
			struct list items, ready;
			struct fiber *fiber; /* in epoll_wait */
			uint64_t wait;
		} epoll;
		bool stop;
		struct crew *crew;
		struct {
			uint8_t *data;
			size_t size;
		} memory;
	};
};

struct process {
	struct crew *crew;
	struct file **files;
	int limit;  /* RLIMIT_NOFILE */
	int used;   /* open descriptors */
	int lowest; /* no lower descriptor is free */
};

struct process *process_make(struct crew *crew, int limit);
void process_free(struct process *process);
/* Returns the descriptor, or -1: none is free. Takes over the reference. */
int process_open(struct process *process, struct file *file);
void process_open_at(struct process *process, int fd, struct file *file);
struct file *process_file(const struct process *process, int fd);
int process_close(struct process *process, int fd);

struct file *file_make(enum file_kind kind);
void file_ref(struct file *file);
void file_unref(struct file *file);
/* The poll(2) events that the file has now. */
unsigned file_ready(const struct file *file);
/* The file may have these events now: wake the fibers that wait for them. */
void file_wake(struct file *file, unsigned events);
/* Wake the present fiber when the file may be ready. */
void file_watch(struct file *file);

int epoll_change(struct file *epoll, int operation, int fd, struct file *file, uint32_t events, void *data);
struct epoll_event;
int epoll_take(struct file *epoll, struct epoll_event *events, int max);

/* --- stream.c --------------------------------------------------------------------------- */

enum client_reads { READS_AT_ONCE, READS_SLOWLY, READS_LATE, READS_NEVER };
enum client_end { END_HALF_CLOSE, END_CLOSE, END_NEVER, END_RESET, END_VANISH };

/* Why the daemon may close a connection. */
enum stream_reason {
	REASON_NONE,
	REASON_EOF,
	REASON_BROKEN,
	REASON_IDLE,
	REASON_REFUSED,
	REASON_PROXY,
	REASON_DRAIN,
	REASON_CUT,
	REASON_EXCUSED,
};

#define HEADER_MAX 512

struct stream {
	struct list link;    /* in the list of all, or of free ones */
	struct list backlog; /* in the list of its listener */
	uint32_t generation;
	struct file *file;     /* NULL: the daemon has closed it, or not accepted it yet */
	struct file *listener; /* while it is in the backlog */
	struct crew *crew;     /* that serves it; NULL: it is in a backlog or in the queue */
	unsigned id, source, family;
	uint32_t key;
	uint32_t receive_max, send_max, client_receive_max, client_send_max;

	/* to the daemon: sent by the client, delivered to the socket, read by the daemon */
	uint64_t sent, delivered, read, discarded;
	/* to the client, payload only: sent by the daemon, acknowledged, read by the client */
	uint64_t echoed, acked, got;
	uint64_t urgent;                        /* position of an urgent byte plus 1; 0: none */
	bool fin_sent, fin_delivered, fin_seen; /* of the client */
	bool end_sent, end_delivered, end_seen; /* of the daemon: shutdown(2) or close(2) */
	bool reset, broken, vanished, client_closed, accepted;
	bool ended;   /* the daemon does not serve it any more */
	bool blocked; /* the client waits for room to send */
	bool proxied; /* from a proxy: a PROXY protocol header comes first */
	bool bad;     /* the header is not valid in any version */
	uint8_t header[HEADER_MAX];
	uint32_t header_size; /* of it, before the payload; 0: none. Positions below count its bytes */
	unsigned proxy; /* the source as accept(2) returns it; `source` is the one that the header names */
	bool crowded;   /* see note_source() */
	int error;      /* pending error of the socket */
	bool up_pending, down_pending, read_pending, audited;
	int64_t since, active, taken; /* accepted, last byte moved by the daemon, got by `crew` */
	uint64_t due;                 /* bytes that had been delivered when its worker was asked to stop */
	bool stopping;                /* `due` is set */
	enum stream_reason reason;    /* once closed by the daemon */

	uint64_t target;              /* bytes to send */
	uint32_t chunk, header_chunk; /* maximum bytes of one action: of payload; while the header is sent */
	int64_t pause;                /* maximum time between actions */
	int64_t latency;              /* maximum time of the network */
	enum client_reads reads;
	enum client_end end;
};

/* All connections that exist. */
extern struct list streams;

/* Counters of the simulation, which those of the daemon are compared with. */
struct truth {
	uint64_t accepted, refused, eof, broken, idle, drain, cut, excused, received, echoed, taken;
	uint32_t live; /* accepted and not closed, also in the queue */
	uint64_t bytes_lost;
};
extern struct truth truth;

void streams_begin(void);
void streams_end(void);
/* A client of one of `sources` connects, with at most `pace` between its actions. Returns NULL where the
 * backlog is full. */
struct stream *stream_connect(struct file *listener, unsigned sources, int64_t pace);
/* Whether the daemon has read the whole header, or there is none. */
bool stream_has_header(const struct stream *stream);
/* Number of bytes of payload among the first `n` bytes from the client. */
uint64_t stream_payload(const struct stream *stream, uint64_t n);
/* A call has failed with an error of the connection. */
void stream_break(struct stream *stream);
struct file *stream_accept(struct file *listener);
ssize_t stream_receive(struct stream *stream, void *data, size_t size, bool discard);
ssize_t stream_send(struct stream *stream, const void *data, size_t size);
ssize_t stream_to_pipe(struct stream *stream, struct file *pipe, size_t size);
ssize_t stream_from_pipe(struct stream *stream, struct file *pipe, size_t size);
ssize_t pipe_read(struct file *pipe, uint8_t *data, size_t size);
void stream_shutdown(struct stream *stream);
/* The process that serves the connection has closed it. */
void stream_ended(struct stream *stream);

void stream_closed(struct stream *stream);
/* The pending error of the socket, which is cleared; 0: none. */
int stream_take_error(struct stream *stream);
unsigned stream_ready(const struct stream *stream);
unsigned stream_unread(const struct stream *stream);
unsigned stream_unacknowledged(const struct stream *stream);
void stream_event(enum event_kind kind, struct stream *stream, uint32_t generation);
/* Have the client reset its connection soon. */
void stream_hurry(struct stream *stream);
/* Have every client end its connection, so that the episode can end. */
void streams_finish(void);

/* --- test_sim.c ------------------------------------------------------------------------- */

/* Time for which accept.c pauses after a failure. */
#define PAUSE (100 * MSEC)

/* Decide why the daemon may close this connection, which is neither complete nor broken; fails where there
 * is no reason. */
enum stream_reason check_close(struct stream *stream);
void note_source(const struct stream *stream);
void check_idle(struct stream *stream);
/* Called before the clock advances, when every fiber waits. */
void check_quiet(int64_t next);
/* A worker of the crew has accepted a client. */
void check_limit(const struct crew *crew);
/* A worker has accepted `accepted` connections since its last wait. */
void check_batch(const struct crew *crew, unsigned accepted);
void operator_event(enum event_kind kind, void *object, uint32_t generation);
void ready_written(struct crew *crew);
/* A thread of the crew was created, or has ended. */
void thread_began(struct crew *crew);
void thread_ended(struct crew *crew);
/* `crew` serves the connection from now on; NULL: no crew does. */
void crew_serves(struct crew *crew, struct stream *stream);
int64_t idle_usec(void); /* 0: never */
/* Number of sources, from 0 on, that are proxies. */
unsigned proxies(void);

/* The names by which a program with 64-bit times and offsets calls the C library on 32-bit architectures. */
#if __SIZEOF_LONG__ == 4 && defined _TIME_BITS && _TIME_BITS == 64
#define SIM_TIME64_NAMES 1
#define __real_clock_gettime __real___clock_gettime64
#define __wrap_clock_gettime __wrap___clock_gettime64
#define __real_fcntl __real___fcntl_time64
#define __wrap_fcntl __wrap___fcntl_time64
#define __real_getsockopt __real___getsockopt64
#define __wrap_getsockopt __wrap___getsockopt64
#define __real_ioctl __real___ioctl_time64
#define __wrap_ioctl __wrap___ioctl_time64
#define __real_mmap __real_mmap64
#define __wrap_mmap __wrap_mmap64
#define __real_nanosleep __real___nanosleep64
#define __wrap_nanosleep __wrap___nanosleep64
#define __real_pread __real_pread64
#define __wrap_pread __wrap_pread64
#define __real_pwrite __real_pwrite64
#define __wrap_pwrite __wrap_pwrite64
#define __real_recvmsg __real___recvmsg64
#define __wrap_recvmsg __wrap___recvmsg64
#define __real_select __real___select64
#define __wrap_select __wrap___select64
#define __real_sendmsg __real___sendmsg64
#define __wrap_sendmsg __wrap___sendmsg64
#define __real_setsockopt __real___setsockopt64
#define __wrap_setsockopt __wrap___setsockopt64
#endif

#endif
