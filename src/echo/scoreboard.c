/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "echo/scoreboard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

/* Since Linux 5.1 and 6.10; the numbers are the same on every architecture. */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef __NR_mseal
#define __NR_mseal 462
#endif

/* Maximum rates, per second, above those of any hardware. A counter above them shows overwritten memory. */
#define EVENTS_MAX UINT64_C(10000000)
#define BYTES_MAX UINT64_C(1000000000000)

/* Maximum number of crews at the same time; less where addresses have 32 bits. */
#define FILES_MAX (sizeof(void *) > 4 ? SCOREBOARD_CREWS : 6)

/* The supervisor's private copy of a slot, of the last time that its values were plausible. */
struct seen {
	uint64_t counters[STATS_COUNT];
	uint32_t heartbeats; /* at the last scoreboard_crew_alive() */
	bool begun;          /* the slot was cleared after the end of an earlier crew */
};

/* The file of a crew, mapped twice, and its layout. Segments begin at a page. */
struct file {
	char *writable;
	const char *readable;
	int fd; /* to free its pages; -1: not possible */
	bool used;
	struct scoreboard_layout layout;
	size_t process_size, reader_size; /* of a segment; reader_size also of a child process */
	size_t readers_at, children_at;
	size_t admission_at; /* offset of struct admission_process in a segment */
	unsigned children;   /* number of child slots used so far */
	struct seen *seen;   /* by worker; mapped, so that only used pages cost memory, and only until the
	                      * crew ends */
	size_t seen_size;
	int64_t started;
};

struct scoreboard {
	struct scoreboard_shared *shared;
	const struct scoreboard_shared *view;
	size_t page, size; /* size: of the file of a crew */
	unsigned count; /* number of files */
	struct stats_slot own;
	uint64_t retired[STATS_COUNT]; /* counters of ended crews */
	uint64_t last[STATS_COUNT];    /* the previous total */
	struct file files[SCOREBOARD_CREWS]; /* last: AddressSanitizer notices an access behind */
};

/* --- memory ----------------------------------------------------------------------------- */

/* Anonymous shared memory, which cannot be sealed, where files of that size are not allowed
 * (RLIMIT_FSIZE). */
static int map_unsealed(char **writable, const char **readable, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
	                    -1, 0),
	     *twin;

	if (memory == MAP_FAILED)
		return -ENOMEM;
	/* a second mapping of the same pages: mremap(2), old_size 0 */
	twin = mremap(memory, 0, size, MREMAP_MAYMOVE);
	if (twin == MAP_FAILED || mprotect(twin, size, PROT_READ) < 0) {
		if (twin != MAP_FAILED)
			munmap(twin, size);
		munmap(memory, size);
		return -ENOMEM;
	}
	*writable = memory;
	*readable = twin;
	return 0;
}

/* Open the file `fd` read-only: a mapping of that description cannot be made writable. Returns -1 where there
 * is no /proc. */
static int open_readable(int fd)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* Make a file of `size` bytes and map it twice. `hole_fd` is NULL, or is set to a descriptor with which pages
 * can be freed, or to -1: with F_SEAL_FUTURE_WRITE, the way without /proc, the kernel does not free pages. */
static int map_twice(char **writable, const char **readable, size_t size, int *hole_fd)
{
	int fd = memfd_create("echod-scoreboard", MFD_CLOEXEC | MFD_ALLOW_SEALING), read_fd = -1, r = 0;
	void *first = MAP_FAILED, *second = MAP_FAILED;

	if (fd < 0 || ftruncate(fd, (off_t) size) < 0) {
		if (fd >= 0)
			close(fd);
		return map_unsealed(writable, readable, size);
	}
	if (hole_fd)
		read_fd = open_readable(fd);
	first = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	/* before Linux 5.1 a process can make the second mapping writable again with mprotect(2) */
	if (read_fd >= 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		(void) fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	if (first != MAP_FAILED)
		second = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, read_fd >= 0 ? read_fd : fd,
		              0);
	if (second == MAP_FAILED) {
		r = -ENOMEM;
		if (first != MAP_FAILED)
			munmap(first, size);
	} else {
		*writable = first;
		*readable = second;
	}
	if (r == 0 && read_fd >= 0)
		*hole_fd = fd;
	else
		close(fd);
	if (read_fd >= 0)
		close(read_fd);
	return r;
}

static size_t round_up(size_t size, size_t to)
{
	return (size + to - 1) / to * to;
}

/* Number of entries of a table: a power of two, at least twice the number of connections. */
static uint32_t table_entries(uint32_t capacity)
{
	uint32_t entries = 4;

	while (entries / 2 < capacity && entries < UINT32_C(1) << 31)
		entries *= 2;
	return entries;
}

/* Size of a file: enough for the largest crew of any model. */
static size_t file_size(size_t page, uint32_t capacity)
{
	size_t slots = (size_t) (CONF_WORKERS_MAX + 8) *
	               (page > sizeof(struct stats_slot) ? page : sizeof(struct stats_slot));
	size_t table = (size_t) table_entries(capacity) * sizeof(struct admission_source);

	/* 4 GiB of address space: leave most of it to other mappings */
	if (sizeof(void *) == 4)
		return 32U << 20;
	return round_up(slots + table, page);
}

int scoreboard_make(struct scoreboard **result, uint32_t capacity)
{
	struct scoreboard *scoreboard = aligned_alloc(_Alignof(struct scoreboard), sizeof *scoreboard);
	const char *view;
	char *shared;
	int r;

	*result = scoreboard;
	if (!scoreboard)
		return -ENOMEM;
	memset(scoreboard, 0, sizeof *scoreboard);
	scoreboard->page = (size_t) sysconf(_SC_PAGESIZE);
	scoreboard->size = file_size(scoreboard->page, capacity);
	r = map_twice(&shared, &view, sizeof *scoreboard->shared, NULL);
	if (r < 0)
		return r;
	scoreboard->shared = (struct scoreboard_shared *) (void *) shared;
	scoreboard->view = (const struct scoreboard_shared *) (const void *) view;
	scoreboard->shared->admission.slot_fd = -1; /* until it is opened */
	/* as many as fit: RLIMIT_AS */
	while (scoreboard->count < FILES_MAX) {
		struct file *file = &scoreboard->files[scoreboard->count];

		file->fd = -1;
		r = map_twice(&file->writable, &file->readable, scoreboard->size, &file->fd);
		if (r < 0)
			break;
		scoreboard->count++;
	}
	if (scoreboard->count < 3) /* the serving crew, its successor, and one that still drains */
		return r;
	return admission_open(&scoreboard->shared->admission);
}

static void file_clear(struct file *file)
{
	if (file->seen)
		munmap(file->seen, file->seen_size);
	file->seen = NULL;
	file->used = false;
}

void scoreboard_free(struct scoreboard *scoreboard)
{
	if (!scoreboard)
		return;
	for (unsigned i = 0; i < scoreboard->count; i++) {
		file_clear(&scoreboard->files[i]);
		munmap(scoreboard->files[i].writable, scoreboard->size);
		munmap((char *) (uintptr_t) scoreboard->files[i].readable, scoreboard->size);
		if (scoreboard->files[i].fd >= 0)
			close(scoreboard->files[i].fd);
	}
	if (scoreboard->shared) {
		admission_close(&scoreboard->shared->admission);
		munmap(scoreboard->shared, sizeof *scoreboard->shared);
		munmap((char *) (uintptr_t) scoreboard->view, sizeof *scoreboard->shared);
	}
	free(scoreboard);
}

struct scoreboard_shared *scoreboard_shared(struct scoreboard *scoreboard)
{
	return scoreboard->shared;
}

const struct scoreboard_shared *scoreboard_view(const struct scoreboard *scoreboard)
{
	return scoreboard->view;
}

struct stats_slot *scoreboard_own_slot(struct scoreboard *scoreboard)
{
	return &scoreboard->own;
}

/* --- segments --------------------------------------------------------------------------- */

static unsigned process_slots(const struct scoreboard_layout *layout)
{
	return layout->threads + (layout->child_processes ? 0 : layout->children);
}

static unsigned crew_workers(const struct scoreboard_layout *layout)
{
	return layout->processes * layout->threads + layout->readers;
}

/* Compute the offsets of the file's parts; false where the layout does not fit. */
static bool file_divide(const struct scoreboard *scoreboard, struct file *file, uint32_t *sources)
{
	const struct scoreboard_layout *layout = &file->layout;
	size_t table, page = scoreboard->page;

	*sources = layout->sources ? table_entries(layout->capacity) : 0;
	file->admission_at = round_up(process_slots(layout) * sizeof(struct stats_slot), 64);
	for (;; *sources /= 2) {
		table = *sources * sizeof(struct admission_source);
		file->process_size =
			round_up(file->admission_at + sizeof(struct admission_process) + table, page);
		file->reader_size = round_up(sizeof(struct stats_slot), page);
		if (file->process_size > scoreboard->size / layout->processes && *sources > 1024)
			continue; /* 32 bit: the table then bounds the number of connections */
		break;
	}
	if (file->process_size > scoreboard->size / layout->processes)
		return false;
	file->readers_at = file->process_size * layout->processes;
	file->children_at = file->readers_at + file->reader_size * layout->readers;
	return file->children_at <= scoreboard->size &&
	       (!layout->child_processes ||
	        (scoreboard->size - file->children_at) / file->reader_size >= layout->children);
}

static size_t segment_at(const struct file *file, unsigned process)
{
	if (process < file->layout.processes)
		return process * file->process_size;
	return file->readers_at + (process - file->layout.processes) * file->reader_size;
}

static size_t segment_size(const struct file *file, unsigned process)
{
	return process < file->layout.processes ? file->process_size : file->reader_size;
}

static size_t child_at(const struct file *file, unsigned child)
{
	if (file->layout.child_processes)
		return file->children_at + child * file->reader_size;
	return (file->layout.threads + child) * sizeof(struct stats_slot);
}

static struct stats_slot *slot_at(const struct file *file, unsigned index)
{
	const struct scoreboard_layout *layout = &file->layout;
	unsigned serving = layout->processes * layout->threads;
	size_t at;

	if (index < serving)
		at = index / layout->threads * file->process_size +
		     index % layout->threads * sizeof(struct stats_slot);
	else if (index < serving + layout->readers)
		at = segment_at(file, layout->processes + index - serving);
	else
		at = child_at(file, index - serving - layout->readers);
	return (struct stats_slot *) (void *) (file->writable + at);
}

struct stats_slot *scoreboard_slot(const struct scoreboard *scoreboard, unsigned crew, unsigned index)
{
	return slot_at(&scoreboard->files[crew], index);
}

struct admission_process *scoreboard_admission(const struct scoreboard *scoreboard, unsigned crew,
                                               unsigned process)
{
	const struct file *file = &scoreboard->files[crew];

	return (struct admission_process *) (void *) (file->writable + segment_at(file, process) +
	                                              file->admission_at);
}

/* Number of workers whose slots are in use: those of the crew's processes, and children created so far. */
static unsigned workers_used(const struct file *file)
{
	return crew_workers(&file->layout) + file->children;
}

/* Read from the slot of the children's parent how many child slots it has used. */
static void update_children(struct file *file)
{
	uint32_t children = atomic_load(&slot_at(file, 0)->children);

	if (children > file->children && children <= file->layout.children)
		file->children = children;
}

/* --- counters --------------------------------------------------------------------------- */

static bool is_bytes(enum stats_counter counter)
{
	return counter == STAT_RECEIVED || counter == STAT_ECHOED || counter == STAT_UDP_BYTES;
}

static uint64_t counter_limit(enum stats_counter counter, int64_t started, int64_t now)
{
	uint64_t seconds = (uint64_t) (now > started ? now - started : 0) / USEC_PER_SEC + 1;
	uint64_t rate = is_bytes(counter) ? BYTES_MAX : EVENTS_MAX;

	return seconds > UINT64_MAX / rate ? UINT64_MAX : seconds * rate;
}

bool scoreboard_is_plausible(const struct stats_slot *slot, int64_t started, int64_t now)
{
	for (enum stats_counter i = 0; i < STATS_COUNT; i++)
		if (atomic_load_explicit(&slot->counters[i], memory_order_relaxed) >
		    counter_limit(i, started, now))
			return false;
	return true;
}

/* Copy the counters of a slot. Returns false, and copies nothing, where a counter is impossible; then no
 * other value of the slot may be trusted either. */
static bool slot_sample(const struct file *file, unsigned index, int64_t now)
{
	const struct stats_slot *slot = slot_at(file, index);
	struct seen *seen = &file->seen[index];
	uint64_t counters[STATS_COUNT];

	for (enum stats_counter i = 0; i < STATS_COUNT; i++) {
		counters[i] = atomic_load_explicit(&slot->counters[i], memory_order_relaxed);
		if (counters[i] > counter_limit(i, file->started, now))
			return false;
	}
	for (enum stats_counter i = 0; i < STATS_COUNT; i++)
		if (counters[i] > seen->counters[i])
			seen->counters[i] = counters[i];
	return true;
}

/* Number of live connections, computed from the counters. */
static uint64_t live_by_counters(const uint64_t counters[static STATS_COUNT])
{
	uint64_t came = counters[STAT_ACCEPTED] + counters[STAT_TAKEN_OVER];
	uint64_t went = counters[STAT_HANDED_OVER];

#define X(id, name, labels, help) went += counters[id];
	STATS_ENDS(X)
#undef X
	return came > went ? came - went : 0;
}

static uint32_t slot_live(const struct file *file, unsigned index)
{
	bool child = index >= crew_workers(&file->layout);
	uint64_t live, max = child ? 1 : file->layout.worker_capacity;

	if (slot_sample(file, index, clock_usec()))
		live = atomic_load_explicit(&slot_at(file, index)->live, memory_order_relaxed);
	else
		live = child ? 1 : live_by_counters(file->seen[index].counters);
	return (uint32_t) (live < max ? live : max);
}

static enum stats_slot_state slot_state(const struct file *file, unsigned index)
{
	uint32_t state = atomic_load(&slot_at(file, index)->state);

	return state == SLOT_READY || state == SLOT_STARTING ? (enum stats_slot_state) state : SLOT_FREE;
}

/* Free the slot of a process that has ended and restore plausible counters, from which a new process counts
 * on. Returns the number of connections that it was serving. */
static uint32_t slot_end(struct file *file, unsigned index)
{
	struct stats_slot *slot = slot_at(file, index);
	uint32_t live = slot_live(file, index);

	for (enum stats_counter i = 0; i < STATS_COUNT; i++)
		atomic_store_explicit(&slot->counters[i], file->seen[index].counters[i],
		                      memory_order_relaxed);
	atomic_store(&slot->live, 0);
	atomic_store(&slot->unsent, 0);
	atomic_store(&slot->pid, 0);
	atomic_store(&slot->state, SLOT_FREE);
	return live;
}

void scoreboard_total(struct scoreboard *scoreboard, struct stats_total *total)
{
	memset(total, 0, sizeof *total);
	for (enum stats_counter i = 0; i < STATS_COUNT; i++)
		total->counters[i] = scoreboard->retired[i] +
		                     atomic_load_explicit(&scoreboard->own.counters[i], memory_order_relaxed);
	for (unsigned f = 0; f < scoreboard->count; f++) {
		struct file *file = &scoreboard->files[f];

		if (!file->used)
			continue;
		update_children(file);
		for (unsigned w = 0; w < workers_used(file); w++) {
			total->live += slot_live(file, w);
			total->unsent +=
				atomic_load_explicit(&slot_at(file, w)->unsent, memory_order_relaxed);
			for (enum stats_counter i = 0; i < STATS_COUNT; i++)
				total->counters[i] += file->seen[w].counters[i];
		}
	}
	for (enum stats_counter i = 0; i < STATS_COUNT; i++) {
		if (total->counters[i] > scoreboard->last[i])
			scoreboard->last[i] = total->counters[i];
		total->counters[i] = scoreboard->last[i];
	}
}

unsigned scoreboard_sample(struct scoreboard *scoreboard)
{
	int64_t now = clock_usec();
	unsigned count = 0;

	for (unsigned f = 0; f < scoreboard->count; f++) {
		struct file *file = &scoreboard->files[f];

		if (!file->used)
			continue;
		update_children(file);
		for (unsigned w = 0; w < workers_used(file); w++, count++)
			(void) slot_sample(file, w, now);
	}
	return count;
}

bool scoreboard_worker_connections(const struct scoreboard *scoreboard, unsigned index, uint64_t *connections,
                                   unsigned *end)
{
	bool found = false;

	*connections = 0;
	*end = 0;
	for (unsigned f = 0; f < scoreboard->count; f++) {
		const struct file *file = &scoreboard->files[f];
		unsigned serving = file->layout.processes * file->layout.threads;

		if (!file->used)
			continue;
		if (workers_used(file) > *end)
			*end = workers_used(file);
		if (index >= workers_used(file) ||
		    (index >= serving && index < serving + file->layout.readers) ||
		    slot_state(file, index) == SLOT_FREE)
			continue;
		*connections += slot_live(file, index);
		found = true;
	}
	return found;
}

/* --- life of a crew --------------------------------------------------------------------- */

int scoreboard_crew_open(struct scoreboard *scoreboard, const struct scoreboard_layout *layout)
{
	unsigned crew = 0, workers = crew_workers(layout) + layout->children;
	struct admission_group group;
	struct file *file;

	while (crew < scoreboard->count && scoreboard->files[crew].used)
		crew++;
	if (crew == scoreboard->count)
		return -EBUSY;
	file = &scoreboard->files[crew];
	file->layout = *layout;
	if (!file_divide(scoreboard, file, &group.sources))
		return -ENOSPC;
	file->seen_size = workers * sizeof *file->seen;
	file->seen = mmap(NULL, file->seen_size, PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (file->seen == MAP_FAILED) {
		file->seen = NULL;
		return -ENOMEM;
	}
	file->children = 0;
	file->started = clock_usec();
	file->used = true;
	atomic_store(&scoreboard->shared->stop_request[crew].stop, STOP_NONE);
	atomic_init(&group.processes, layout->processes);
	group.capacity = layout->capacity;
	group.max_connections = layout->max_connections;
	group.stride = file->process_size;
	group.first = file->readable + file->admission_at;
	group.generations = scoreboard->view->generations[crew];
	admission_group_open(&scoreboard->shared->admission, crew, &group);
	return (int) crew;
}

void scoreboard_crew_close(struct scoreboard *scoreboard, unsigned crew)
{
	struct file *file = &scoreboard->files[crew];

	update_children(file);
	for (unsigned w = 0; w < workers_used(file); w++) {
		(void) slot_sample(file, w, clock_usec());
		for (enum stats_counter i = 0; i < STATS_COUNT; i++)
			scoreboard->retired[i] += file->seen[w].counters[i];
	}
	admission_group_close(&scoreboard->shared->admission, crew);
	file_clear(file);
	if (file->fd >= 0)
		(void) fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		                 (off_t) scoreboard->size);
}

/* Sets `*first` to the first worker of the process. Returns the number of workers in its segment without
 * children. */
static unsigned process_workers(const struct file *file, unsigned process, unsigned *first)
{
	const struct scoreboard_layout *layout = &file->layout;

	if (process < layout->processes) {
		*first = process * layout->threads;
		return layout->threads;
	}
	*first = layout->processes * layout->threads + process - layout->processes;
	return 1;
}

void scoreboard_process_start(struct scoreboard *scoreboard, unsigned crew, unsigned process)
{
	struct file *file = &scoreboard->files[crew];
	unsigned first, count = process_workers(file, process, &first);

	for (unsigned i = first; i < first + count; i++) {
		struct stats_slot *slot = slot_at(file, i);

		if (!file->seen[i].begun)
			memset(slot, 0, sizeof *slot);
		file->seen[i].begun = true;
		atomic_store(&slot->children, file->children);
		atomic_store(&slot->state, SLOT_STARTING);
	}
	if (process < file->layout.processes)
		admission_process_start(&scoreboard->shared->admission, crew,
		                        scoreboard_admission(scoreboard, crew, process),
		                        &scoreboard->shared->generations[crew][process]);
}

uint32_t scoreboard_process_end(struct scoreboard *scoreboard, unsigned crew, unsigned process)
{
	struct file *file = &scoreboard->files[crew];
	unsigned first, count = process_workers(file, process, &first);
	uint32_t live = 0;

	update_children(file);
	for (unsigned i = first; i < first + count; i++)
		live += slot_end(file, i);
	/* threads end with their process */
	if (process == 0 && !file->layout.child_processes)
		for (unsigned i = crew_workers(&file->layout); i < workers_used(file); i++)
			live += slot_end(file, i);
	if (process < file->layout.processes)
		admission_process_end(&scoreboard->shared->admission, crew,
		                      scoreboard_admission(scoreboard, crew, process),
		                      &scoreboard->shared->generations[crew][process]);
	return live;
}

/* The process id that a child's slot claims. Where there is none yet, the child can no longer write it. */
static pid_t child_pid(struct stats_slot *slot)
{
	int32_t pid = STATS_PID_UNKNOWN;

	return atomic_compare_exchange_strong(&slot->pid, &pid, 0) ? 0 : pid;
}

uint32_t scoreboard_find_orphans(struct scoreboard *scoreboard, unsigned crew,
                                 bool (*is_child)(void *context, unsigned child, pid_t pid), void *context)
{
	struct file *file = &scoreboard->files[crew];
	unsigned first = crew_workers(&file->layout);
	uint32_t live = 0;

	update_children(file);
	for (unsigned child = 0; file->layout.child_processes && child < file->children; child++) {
		pid_t pid;

		if (scoreboard->shared->orphans[crew][child])
			continue;
		pid = child_pid(slot_at(file, first + child));
		if (pid > 0 && is_child(context, child, pid)) {
			atomic_store(&scoreboard->shared->orphans[crew][child], 1);
			admission_add_orphans(&scoreboard->shared->admission, 1);
		} else {
			live += slot_end(file, first + child);
		}
	}
	return live;
}

uint32_t scoreboard_orphan_end(struct scoreboard *scoreboard, unsigned crew, unsigned child,
                               enum scoreboard_end end)
{
	struct file *file = &scoreboard->files[crew];
	uint32_t live = slot_end(file, crew_workers(&file->layout) + child);

	if (end == SCOREBOARD_HANDED_OVER)
		atomic_fetch_add(&scoreboard->shared->admission.supervisor.sent, 1);
	atomic_store(&scoreboard->shared->orphans[crew][child], 0);
	admission_add_orphans(&scoreboard->shared->admission, -1);
	return live;
}

bool scoreboard_crew_ready(const struct scoreboard *scoreboard, unsigned crew)
{
	const struct file *file = &scoreboard->files[crew];

	for (unsigned i = 0; i < crew_workers(&file->layout); i++)
		if (slot_state(file, i) != SLOT_READY)
			return false;
	return true;
}

bool scoreboard_crew_alive(struct scoreboard *scoreboard, unsigned crew)
{
	struct file *file = &scoreboard->files[crew];
	bool alive = true;

	update_children(file);
	for (unsigned i = 0; i < workers_used(file); i++) {
		uint32_t heartbeats = atomic_load(&slot_at(file, i)->heartbeats);

		if (slot_state(file, i) == SLOT_READY && file->seen[i].heartbeats == heartbeats)
			alive = false;
		file->seen[i].heartbeats = heartbeats;
	}
	return alive;
}

/* --- worker processes ------------------------------------------------------------------- */

static void unmap(char *from, char *to)
{
	if (to > from)
		munmap(from, (size_t) (to - from));
}

/* Seal the mapping where the kernel can: then it can be neither moved, grown nor removed. */
static void seal(char *from, size_t size)
{
	(void) syscall(__NR_mseal, from, size, 0UL);
}

void scoreboard_enter(const struct scoreboard *scoreboard, unsigned crew, unsigned process)
{
	const struct file *file = &scoreboard->files[crew];
	char *from = file->writable + segment_at(file, process), *to = from + segment_size(file, process);
	char *end = file->writable + scoreboard->size;
	bool parent = process == 0 && file->layout.child_processes;

	munmap(scoreboard->shared, sizeof *scoreboard->shared);
	for (unsigned i = 0; i < scoreboard->count; i++)
		if (i != crew)
			munmap(scoreboard->files[i].writable, scoreboard->size);
	unmap(file->writable, from);
	if (!parent) {
		unmap(to, end);
		seal(from, (size_t) (to - from));
		return;
	}
	/* the rest belongs to the children; not sealed, because each child unmaps all but its own part */
	unmap(to, file->writable + file->children_at);
	unmap(file->writable + file->children_at + file->layout.children * file->reader_size, end);
}

void scoreboard_enter_child(const struct scoreboard *scoreboard, unsigned crew, unsigned child)
{
	const struct file *file = &scoreboard->files[crew];
	char *from = file->writable + child_at(file, child), *to = from + file->reader_size;

	unmap(file->writable, file->writable + file->process_size);
	unmap(file->writable + file->children_at, from);
	unmap(to, file->writable + file->children_at + file->layout.children * file->reader_size);
	seal(from, file->reader_size);
}
