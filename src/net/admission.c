/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/admission.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Attempts to take the last slot while it is undecided whether another process takes it. */
#define CLAIM_TRIES 200

/* Attempts to read counts that other processes change at the same time. */
#define READ_TRIES 1000

/* Processes of which a thread remembers that they do not complete a change. */
#define STUCK_MAX 16

/* Protects this process's table of sources, which its threads share. */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- counts of all processes ------------------------------------------------------------ */

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Process `index` of the group, or NULL where it does not run. */
static const struct admission_process *process_at(const struct admission_group *group, uint32_t index)
{
	return atomic_load(&group->generations[index]) == 0
	             ? NULL
	             : (const struct admission_process *) (const void *) (group->first +
	                                                                  (size_t) index * group->stride);
}

static bool is_own(const struct admission *admission, uint32_t group, uint32_t index)
{
	return admission->own && admission->group == group && admission->index == index;
}

static bool comes_before(const struct admission *admission, uint32_t group, uint32_t index)
{
	return group < admission->group || (group == admission->group && index < admission->index);
}

/* Counts of the other processes, of slots or of one source. */
struct others {
	uint64_t count;  /* total; for slots including connections in the queue */
	uint64_t trying; /* of these: not yet admitted */
	bool before;     /* a process of lower order has connections that are not yet admitted */
};

static void others_add(struct others *others, uint64_t count, uint64_t trying, uint64_t capacity, bool before)
{
	count = lesser(count, capacity);
	trying = lesser(trying, count);
	others->count += count;
	others->trying += trying;
	others->before |= before && trying > 0;
}

/* Connections that a process has sent to itself: a child of model `process` sends one back to its parent to
 * be admitted. */
static uint64_t queue_own(const struct admission_process *process)
{
	return lesser(atomic_load(&process->sent), atomic_load(&process->received));
}

/* Loop over all running processes. */
#define FOR_EACH_PROCESS(shared, g, i, process) \
	for (uint32_t g = 0; g < ADMISSION_GROUPS; g++) \
		for (uint32_t i = 0, n_ = atomic_load(&(shared)->groups[g].processes); i < n_; i++) \
			for (const struct admission_process *process = process_at(&(shared)->groups[g], i); \
			     process; process = NULL)

/* What a process sends counts once its group hands over. Before that, it can only have sent to itself, which
 * must not count as received either. */
static uint64_t queue_received(const struct admission_shared *shared)
{
	uint64_t received = atomic_load(&shared->supervisor.received);

	FOR_EACH_PROCESS(shared, g, i, process) {
		uint64_t own = atomic_load(&shared->groups[g].sending) ? 0 : queue_own(process);

		received += lesser(atomic_load(&process->received) - own, UINT32_MAX);
	}
	return received;
}

/* A process sends at most the connections that it had when it was stopped, and those that it received
 * since. */
static uint64_t queue_sent(const struct admission_shared *shared)
{
	uint64_t sent = atomic_load(&shared->supervisor.sent);

	FOR_EACH_PROCESS(shared, g, i, process) {
		uint64_t received = lesser(atomic_load(&process->received), UINT32_MAX);

		if (atomic_load(&shared->groups[g].sending))
			sent += lesser(atomic_load(&process->sent), received + shared->groups[g].capacity);
	}
	return sent;
}

/* Add up the slots of others. A connection moves from the count of its sender to that of the queue and then
 * to that of its receiver; each of them counts it before the previous one stops counting it. So read
 * `received` first and `sent` last: then no connection is missed, however it moves meanwhile. */
static void slots_add(const struct admission *admission, struct others *others)
{
	const struct admission_shared *shared = admission->shared;
	bool queue = atomic_load(&shared->queue_in_use);
	uint64_t received = queue ? queue_received(shared) : 0, sent;

	*others = (struct others) { .count = atomic_load(&shared->supervisor.connections) };
	FOR_EACH_PROCESS(shared, g, i, process)
		if (!is_own(admission, g, i))
			others_add(others, atomic_load(&process->connections), atomic_load(&process->trying),
			           shared->groups[g].capacity, comes_before(admission, g, i));
	sent = queue ? queue_sent(shared) : 0;
	others->count += sent > received ? sent - received : 0;
}

/* Whether the supervisor has changed nothing since `*changes` was read. Sets `*changes` to the present
 * value. */
static bool is_unchanged(const struct admission_shared *shared, uint32_t *changes)
{
	uint32_t before = *changes;

	*changes = atomic_load(&shared->changes);
	if (before == *changes && before % 2 == 0)
		return true;
	if (*changes % 2 == 1)
		sched_yield();
	return false;
}

static void slots_of_others(const struct admission *admission, struct others *others)
{
	uint32_t changes = atomic_load(&admission->shared->changes);

	for (unsigned i = 0; i < READ_TRIES; i++) {
		slots_add(admission, others);
		if (is_unchanged(admission->shared, &changes))
			return;
	}
}

/* --- sources ---------------------------------------------------------------------------- */

static uint64_t source_key(const struct peer *peer)
{
	uint64_t key = 0;

	if (peer->family == AF_INET || peer->family == AF_VSOCK) {
		uint32_t address; /* or context identifier */

		memcpy(&address, peer->address, sizeof address);
		return (peer->family == AF_INET ? UINT64_C(1) : UINT64_C(2)) << 32 | address;
	}
	memcpy(&key, peer->address, sizeof key);
	/* changed, so that no prefix in use is equal to an IPv4 key */
	return key ^ UINT64_C(0x9e3779b97f4a7c15);
}

/* The table of one process; only that process may write it. */
struct table {
	struct admission_source *sources;
	uint32_t mask, generation;
};

static bool table_of(struct table *table, const struct admission_group *group,
                     const struct admission_process *process, uint32_t index)
{
	if (group->sources == 0)
		return false;
	table->sources = (struct admission_source *) (uintptr_t) (process + 1);
	table->mask = group->sources - 1;
	table->generation = atomic_load(&group->generations[index]);
	return true;
}

static bool table_own(struct table *table, const struct admission *admission)
{
	return admission->own && admission->group < ADMISSION_GROUPS &&
	       table_of(table, &admission->shared->groups[admission->group], admission->own,
	                admission->index);
}

static uint32_t source_home(const struct admission_shared *shared, const struct table *table, uint64_t key)
{
	return (uint32_t) siphash(&shared->hash_key, &key, sizeof key) & table->mask;
}

static bool is_free(const struct table *table, const struct admission_source *source)
{
	return atomic_load_explicit(&source->count, memory_order_relaxed) == 0 ||
	       atomic_load_explicit(&source->generation, memory_order_relaxed) != table->generation;
}

/* The entry of the key, or the free entry for it; NULL where the table is full (another process may claim any
 * content). */
static struct admission_source *source_find(const struct admission_shared *shared, const struct table *table,
                                            uint64_t key)
{
	uint32_t home = source_home(shared, table, key);

	for (uint32_t i = 0; i <= table->mask; i++) {
		struct admission_source *source = &table->sources[(home + i) & table->mask];

		if (is_free(table, source) || atomic_load_explicit(&source->key, memory_order_relaxed) == key)
			return source;
	}
	return NULL;
}

/* Close the gap of an entry that has become free, so that no search ends too early (Knuth 6.4, algorithm
 * R). */
static void source_remove(const struct admission_shared *shared, const struct table *table,
                          struct admission_source *source)
{
	uint32_t gap = (uint32_t) (source - table->sources), mask = table->mask;

	for (uint32_t at = (gap + 1) & mask; !is_free(table, &table->sources[at]); at = (at + 1) & mask) {
		uint32_t home = source_home(shared, table, atomic_load(&table->sources[at].key));

		if (((at - home) & mask) >= ((at - gap) & mask)) {
			table->sources[gap] = table->sources[at];
			/* free at once: in a full table this is where the loop ends */
			atomic_store(&table->sources[at].count, 0);
			gap = at;
		}
	}
}

/* Add `count` connections of the key to the own table (negative: remove), `trying` of them not yet admitted.
 * Returns the number of its connections afterwards; 0 also where the table is full. */
static uint32_t source_change(const struct admission *admission, const struct table *table, uint64_t key,
                              int count, int trying)
{
	struct admission_source *source;
	uint32_t now = 0;

	pthread_mutex_lock(&table_lock);
	atomic_fetch_add(&admission->own->changes, 1);
	source = source_find(admission->shared, table, key);
	if (source && is_free(table, source) && count > 0) {
		atomic_store(&source->key, key);
		atomic_store(&source->generation, table->generation);
		atomic_store(&source->trying, 0);
		atomic_store(&source->count, 0);
	}
	if (source && (count > 0 || !is_free(table, source))) {
		atomic_fetch_add(&source->trying, (uint32_t) trying);
		now = atomic_fetch_add(&source->count, (uint32_t) count) + (uint32_t) count;
		if (now == 0)
			source_remove(admission->shared, table, source);
	}
	atomic_fetch_add(&admission->own->changes, 1);
	pthread_mutex_unlock(&table_lock);
	return now;
}

/* The value of `changes` that a process did not change during READ_TRIES attempts in the middle of a change:
 * it was stopped or killed there, or writes random values. On a busy host the attempts take long, so they are
 * not made again for the same value. */
static _Thread_local struct {
	const struct admission_process *process;
	uint32_t changes;
} stuck[STUCK_MAX];

static size_t stuck_place(const struct admission_process *process)
{
	return (size_t) ((uintptr_t) process / sizeof *process) % STUCK_MAX;
}

static bool is_stuck(const struct admission_process *process, uint32_t changes)
{
	size_t at = stuck_place(process);

	return changes % 2 == 1 && stuck[at].process == process && stuck[at].changes == changes;
}

static void stuck_remember(const struct admission_process *process, uint32_t changes)
{
	size_t at = stuck_place(process);

	stuck[at].process = process;
	stuck[at].changes = changes;
}

/* Read an entry of another process's table, which may change meanwhile. The counts are 0 where it changed
 * during each of READ_TRIES attempts. */
static void source_read(const struct admission_shared *shared, const struct admission_process *process,
                        const struct table *table, uint64_t key, uint32_t *count, uint32_t *trying)
{
	uint32_t before = 0;

	for (unsigned i = 0; i < READ_TRIES; i++) {
		const struct admission_source *source;

		*count = *trying = 0;
		before = atomic_load(&process->changes);
		if (is_stuck(process, before))
			return;
		source = before % 2 == 0 ? source_find(shared, table, key) : NULL;
		if (source && !is_free(table, source)) {
			*count = atomic_load(&source->count);
			*trying = atomic_load(&source->trying);
		}
		if (before % 2 == 0 && atomic_load(&process->changes) == before)
			return;
		if (before % 2 == 1)
			sched_yield();
	}
	*count = *trying = 0;
	stuck_remember(process, before);
}

static void source_of_others(const struct admission *admission, uint64_t key, struct others *others)
{
	const struct admission_shared *shared = admission->shared;
	struct table table;
	uint32_t count, trying;

	*others = (struct others) { 0 };
	FOR_EACH_PROCESS(shared, g, i, process) {
		if (is_own(admission, g, i) || !table_of(&table, &shared->groups[g], process, i))
			continue;
		source_read(shared, process, &table, key, &count, &trying);
		others_add(others, count, trying, shared->groups[g].capacity, comes_before(admission, g, i));
	}
}

/* --- claims ----------------------------------------------------------------------------- */

/* A request for a connection slot, or, with a table, for one connection of a source. */
struct claim {
	const struct admission *admission;
	uint32_t max;
	uint64_t key;
	const struct table *table; /* NULL: a slot */
};

static uint32_t claim_change(const struct claim *claim, int count, int trying)
{
	struct admission_process *own = claim->admission->own;

	if (claim->table)
		return source_change(claim->admission, claim->table, claim->key, count, trying);
	if (trying > 0)
		atomic_fetch_add(&own->trying, (uint32_t) trying);
	count = (int) (atomic_fetch_add(&own->connections, (uint32_t) count) + (uint32_t) count);
	if (trying < 0)
		atomic_fetch_add(&own->trying, (uint32_t) trying);
	return (uint32_t) count;
}

static void claim_count_others(const struct claim *claim, struct others *others)
{
	if (claim->table)
		source_of_others(claim->admission, claim->key, others);
	else
		slots_of_others(claim->admission, others);
}

/* Whether another thread of this process has received a connection from the queue since `received` was
 * read: it may be counted neither in an own count read before, nor in that of the queue read afterwards. */
static bool has_received(const struct claim *claim, uint64_t received)
{
	return !claim->table && atomic_load(&claim->admission->own->received) != received;
}

/* Add 1 to the own count, then read the counts of others: of two processes that do this at once, at least one
 * sees the other. Where the limit is exceeded only by connections that are not yet admitted, the process that
 * comes first in order reads again until the others have withdrawn; the others withdraw, and try again once
 * it has decided. */
static bool claim_take(const struct claim *claim)
{
	for (unsigned tries = 0; tries < CLAIM_TRIES;) {
		uint64_t received = atomic_load(&claim->admission->own->received);
		uint32_t own = claim_change(claim, 1, 1);
		struct others others = { .count = 0 };

		if (own == 0)
			return false;
		do {
			claim_count_others(claim, &others);
			if (has_received(claim, received))
				break;
			if (own + others.count <= claim->max) {
				claim_change(claim, 0, -1);
				return true;
			}
			if (others.trying == 0 || own + others.count - others.trying > claim->max)
				tries = CLAIM_TRIES;
			else
				sched_yield();
		} while (!others.before && ++tries < CLAIM_TRIES);
		claim_change(claim, -1, -1);
		/* the process that comes first would see this one each time if it counted again at once */
		while (others.before && ++tries < CLAIM_TRIES) {
			sched_yield();
			claim_count_others(claim, &others);
		}
		tries++;
	}
	return false;
}

/* --- connection slots ------------------------------------------------------------------- */

uint32_t admission_limit(const struct admission *admission)
{
	return (uint32_t) lesser(admission->max_connections,
	                         atomic_load(&admission->shared->max_connections));
}

/* Whether the number of connections can exceed the limit. Where it cannot, the capacity of each process is
 * the only bound. */
static bool is_reachable(const struct admission *admission)
{
	return atomic_load(&admission->shared->capacity) > admission_limit(admission) ||
	       atomic_load(&admission->shared->queue_in_use) ||
	       atomic_load(&admission->shared->supervisor.connections) > 0;
}

/* Whether this process is the only one that counts connections. */
static bool is_alone(const struct admission *admission)
{
	return atomic_load(&admission->shared->processes) == 1 &&
	       !atomic_load(&admission->shared->queue_in_use) &&
	       atomic_load(&admission->shared->supervisor.connections) == 0;
}

static bool any_waiting(const struct admission_shared *shared)
{
	bool waiting = false;

	FOR_EACH_PROCESS(shared, g, i, process)
		waiting |= atomic_load(&process->waiting) > 0;
	return waiting;
}

/* Wake workers that wait for a slot. */
static void wake_waiting(const struct admission_shared *shared)
{
	uint64_t one = 1;

	if (any_waiting(shared) && write(shared->slot_fd, &one, sizeof one) < 0)
		return; /* EAGAIN: already readable */
}

/* As wake_waiting(), if fewer than `limit` slots are taken. */
static void wake_if_below(const struct admission_shared *shared, uint32_t limit)
{
	if (any_waiting(shared) && admission_slots_taken(shared) < limit)
		wake_waiting(shared);
}

/* As wake_waiting(), if a slot is free. */
static void wake_if_free(const struct admission_shared *shared)
{
	wake_if_below(shared, atomic_load(&shared->max_connections));
}

bool admission_slot_acquire(const struct admission *admission)
{
	const struct claim claim = { .admission = admission, .max = admission_limit(admission) };
	uint32_t own;

	if (!admission->own)
		return true;
	/* add first: a process that starts meanwhile sees this count, or is seen */
	own = atomic_fetch_add(&admission->own->connections, 1) + 1;
	if (own <= claim.max &&
	    (is_alone(admission) ||
	     (!is_reachable(admission) && own <= admission->shared->groups[admission->group].capacity)))
		return true;
	atomic_fetch_sub(&admission->own->connections, 1);
	if (own <= claim.max && claim_take(&claim))
		return true;
	/* workers that try at once may all be refused because of each other: the last one to withdraw finds
	 * that a slot is free. Not where only the limit of another crew permits it: this worker would wake
	 * itself. */
	wake_if_below(admission->shared, claim.max);
	return false;
}

void admission_slot_force(const struct admission *admission)
{
	if (admission->own)
		atomic_fetch_add(&admission->own->connections, 1);
}

void admission_slot_release(const struct admission *admission)
{
	if (!admission->own)
		return;
	atomic_fetch_sub(&admission->own->connections, 1);
	if (is_reachable(admission) || atomic_load(&admission->own->waiting) > 0)
		wake_waiting(admission->shared);
}

bool admission_slot_acquire_capped(const struct admission *admission, uint32_t capacity)
{
	if (!admission->own || atomic_fetch_add(&admission->own->connections, 1) < capacity)
		return true;
	admission_slot_release(admission);
	return false;
}

int admission_slot_fd(const struct admission_shared *shared)
{
	return shared->slot_fd;
}

void admission_wait(const struct admission *admission)
{
	uint64_t count;

	/* an event written for earlier waiters would wake this worker again and again */
	if (read(admission->shared->slot_fd, &count, sizeof count) < 0)
		count = 0;
	if (admission->own)
		atomic_fetch_add(&admission->own->waiting, 1);
}

void admission_wait_done(const struct admission *admission)
{
	if (!admission->own)
		return;
	atomic_fetch_sub(&admission->own->waiting, 1);
	/* several slots may have become free with one event, and a worker that stops may have consumed it */
	wake_if_free(admission->shared);
}

uint32_t admission_slots_taken(const struct admission_shared *shared)
{
	const struct admission all = { .shared = shared };
	struct others others;

	slots_of_others(&all, &others);
	return (uint32_t) lesser(others.count, UINT32_MAX);
}

/* --- the queue -------------------------------------------------------------------------- */

bool admission_queue_pending(const struct admission *admission)
{
	const struct admission_shared *shared = admission->shared;
	uint64_t received;

	if (!atomic_load(&shared->queue_in_use))
		return false;
	received = queue_received(shared);
	return queue_sent(shared) > received;
}

void admission_add_source(const struct admission *admission, const struct peer *peer)
{
	struct table table;

	if (peer->family != AF_UNIX && admission->max_per_source > 0 && table_own(&table, admission))
		(void) source_change(admission, &table, source_key(peer), 1, 0);
}

void admission_enqueue(const struct admission *admission, const struct peer *peer)
{
	if (!admission->own)
		return;
	if (peer)
		admission_leave(admission, peer);
	atomic_fetch_add(&admission->own->sent, 1);
	atomic_fetch_sub(&admission->own->connections, 1);
	wake_if_free(admission->shared);
}

void admission_dequeue(const struct admission *admission, const struct peer *peer)
{
	if (!admission->own)
		return;
	if (peer)
		admission_add_source(admission, peer);
	atomic_fetch_add(&admission->own->received, 1);
	wake_if_free(admission->shared);
}

/* Not by reducing `sent`: a process that has added up this one's connections before, and reads `sent`
 * afterwards, would miss the connection. */
void admission_enqueue_undo(const struct admission *admission, const struct peer *peer)
{
	admission_slot_force(admission);
	admission_dequeue(admission, peer);
}

/* --- peers ------------------------------------------------------------------------------ */

static bool source_take(const struct admission *admission, const struct peer *peer)
{
	struct table table;
	const struct claim claim = { .admission = admission,
		                     .max = admission->max_per_source,
		                     .key = source_key(peer),
		                     .table = &table };

	return !table_own(&table, admission) || claim_take(&claim);
}

enum admission_verdict admission_admit(const struct admission *admission, const struct peer *peer)
{
	struct addr addr;

	if (peer->family == AF_UNIX)
		return ADMISSION_OK;
	/* allow and deny list IP addresses */
	if (peer->family != AF_VSOCK && (admission->deny->count > 0 || admission->allow->count > 0)) {
		peer_to_addr(peer, &addr);
		if (cidr_set_match(admission->deny, &addr))
			return ADMISSION_DENIED;
		if (admission->allow->count > 0 && !cidr_set_match(admission->allow, &addr))
			return ADMISSION_DENIED;
	}
	if (admission->max_per_source > 0 && !source_take(admission, peer))
		return ADMISSION_SOURCE;
	return ADMISSION_OK;
}

bool admission_same_source(const struct peer *a, const struct peer *b)
{
	return source_key(a) == source_key(b);
}

void admission_leave(const struct admission *admission, const struct peer *peer)
{
	struct table table;

	if (peer->family != AF_UNIX && admission->max_per_source > 0 && table_own(&table, admission))
		(void) source_change(admission, &table, source_key(peer), -1, 0);
}

uint32_t admission_source_count(const struct admission *admission, const struct peer *peer)
{
	const struct admission all = { .shared = admission->shared };
	struct others others;

	source_of_others(&all, source_key(peer), &others);
	return (uint32_t) lesser(others.count, UINT32_MAX);
}

/* --- the supervisor --------------------------------------------------------------------- */

int admission_open(struct admission_shared *shared)
{
	int r = siphash_key_make(&shared->hash_key);

	shared->slot_fd = -1;
	atomic_init(&shared->max_connections, UINT32_MAX);
	if (r < 0)
		return r;
	shared->slot_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return shared->slot_fd < 0 ? -errno : 0;
}

void admission_close(struct admission_shared *shared)
{
	if (shared->slot_fd >= 0)
		close(shared->slot_fd);
	shared->slot_fd = -1;
}

static void change_begin(struct admission_shared *shared)
{
	atomic_fetch_add(&shared->changes, 1);
}

static void change_end(struct admission_shared *shared)
{
	atomic_fetch_add(&shared->changes, 1);
}

/* Compute the limit that all groups share. */
static void limit_update(struct admission_shared *shared)
{
	uint32_t limit = UINT32_MAX;

	for (uint32_t g = 0; g < ADMISSION_GROUPS; g++) {
		const struct admission_group *group = &shared->groups[g];

		if (atomic_load(&group->processes) > 0 && !atomic_load(&group->sending) &&
		    group->max_connections > 0)
			limit = (uint32_t) lesser(limit, group->max_connections);
	}
	atomic_store(&shared->max_connections, limit);
}

void admission_group_open(struct admission_shared *shared, uint32_t group,
                          const struct admission_group *layout)
{
	struct admission_group *is = &shared->groups[group];

	change_begin(shared);
	is->sending = false;
	is->capacity = layout->capacity;
	is->max_connections = layout->max_connections;
	is->sources = layout->sources;
	is->stride = layout->stride;
	is->first = layout->first;
	is->generations = layout->generations;
	atomic_store(&is->processes, atomic_load(&layout->processes));
	limit_update(shared);
	change_end(shared);
}

void admission_queue_begin(struct admission_shared *shared)
{
	change_begin(shared);
	atomic_store(&shared->queue_in_use, true);
	change_end(shared);
}

void admission_group_stopping(struct admission_shared *shared, uint32_t group)
{
	change_begin(shared);
	atomic_store(&shared->queue_in_use, true);
	atomic_store(&shared->groups[group].sending, true);
	limit_update(shared);
	change_end(shared);
	wake_waiting(shared);
}

void admission_group_close(struct admission_shared *shared, uint32_t group)
{
	change_begin(shared);
	atomic_store(&shared->groups[group].processes, 0);
	atomic_store(&shared->groups[group].sending, false);
	limit_update(shared);
	change_end(shared);
	wake_waiting(shared);
}

void admission_process_start(struct admission_shared *shared, uint32_t group,
                             struct admission_process *process, _Atomic uint32_t *generation)
{
	static uint32_t last;

	memset(process, 0, sizeof *process);
	last = last == UINT32_MAX ? 1 : last + 1;
	change_begin(shared);
	atomic_fetch_add(&shared->processes, 1);
	atomic_fetch_add(&shared->capacity, shared->groups[group].capacity);
	atomic_store(generation, last);
	change_end(shared);
}

void admission_process_end(struct admission_shared *shared, uint32_t group, struct admission_process *process,
                           _Atomic uint32_t *generation)
{
	uint64_t own;

	if (atomic_load(generation) == 0)
		return;
	own = queue_own(process);
	change_begin(shared);
	if (atomic_load(&shared->groups[group].sending))
		atomic_fetch_add(&shared->supervisor.sent,
		                 lesser(atomic_load(&process->sent) - own, shared->groups[group].capacity));
	atomic_fetch_add(&shared->supervisor.received,
	                 lesser(atomic_load(&process->received) - own, UINT32_MAX));
	atomic_fetch_sub(&shared->processes, 1);
	atomic_fetch_sub(&shared->capacity, shared->groups[group].capacity);
	atomic_store(generation, 0);
	change_end(shared);
	wake_waiting(shared);
}

void admission_add_orphans(struct admission_shared *shared, int count)
{
	atomic_fetch_add(&shared->supervisor.connections, (uint32_t) count);
	if (count < 0)
		wake_waiting(shared);
}

void admission_queue_settle(struct admission_shared *shared, unsigned count)
{
	bool sending = false;
	uint64_t received, sent;

	for (uint32_t g = 0; g < ADMISSION_GROUPS; g++)
		sending |= atomic_load(&shared->groups[g].processes) > 0 &&
		           atomic_load(&shared->groups[g].sending);
	change_begin(shared);
	received = queue_received(shared) - atomic_load(&shared->supervisor.received);
	sent = queue_sent(shared) - atomic_load(&shared->supervisor.sent);
	/* received + x = sent + y - count, with the smallest x and y */
	atomic_store(&shared->supervisor.received, sent > received + count ? sent - received - count : 0);
	atomic_store(&shared->supervisor.sent, sent < received + count ? received + count - sent : 0);
	atomic_store(&shared->queue_in_use, sending || count > 0);
	change_end(shared);
	wake_waiting(shared);
}
