#include <config.h>

#include "net/admission.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/siphash.h"

struct source {
	uint64_t key;   /* family bit and the IPv4 address, or the IPv6 /64; never 0 in use */
	uint32_t owner;
	uint32_t count; /* 0: free */
};

struct admission_shared {
	_Atomic uint32_t places;
	_Atomic uint32_t waiting;
	int room;
	uint32_t queue; /* as an owner: the number after the last worker's */
	size_t size;
	struct siphash_key hash_key; /* of sources[]: peers choose their addresses */
	pthread_mutex_t lock; /* over sources[] and sources_used */
	uint32_t sources_used;
	uint32_t sources_mask;   /* their number less one */
	struct source *sources;  /* open addressing; behind held[] in the same mapping */
	_Atomic uint32_t held[]; /* places by owner */
};

struct admission_shared *admission_make(uint32_t owners, uint32_t sources)
{
	size_t counts = sizeof(struct admission_shared) + (owners + 4) / 4 * 4 * sizeof(_Atomic uint32_t);
	size_t size = counts + sources * sizeof(struct source);
	struct admission_shared *shared = mmap(NULL, size, PROT_READ | PROT_WRITE,
	                                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pthread_mutexattr_t attr;

	if (shared == MAP_FAILED)
		return NULL;
	shared->size = size;
	/* the mapping is at the same address in every process forked later */
	shared->sources = (struct source *) (void *) ((char *) shared + counts);
	shared->sources_mask = sources - 1;
	shared->queue = owners;
	shared->room = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (shared->room < 0 || siphash_key_make(&shared->hash_key) < 0) {
		close(shared->room);
		munmap(shared, size);
		return NULL;
	}
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&shared->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return shared;
}

void admission_free(struct admission_shared *shared)
{
	if (!shared)
		return;
	close(shared->room);
	pthread_mutex_destroy(&shared->lock);
	munmap(shared, shared->size);
}

/* --- places ---------------------------------------------------------------------------- */

bool admission_take_place(const struct admission *admission)
{
	struct admission_shared *shared = admission->shared;

	/* others may overshoot for a moment and step back: the limit itself is never passed */
	if (atomic_fetch_add(&shared->places, 1) >= admission->max_connections) {
		atomic_fetch_sub(&shared->places, 1);
		return false;
	}
	atomic_fetch_add_explicit(&shared->held[admission->owner], 1, memory_order_relaxed);
	return true;
}

void admission_force_place(const struct admission *admission)
{
	atomic_fetch_add(&admission->shared->places, 1);
	atomic_fetch_add_explicit(&admission->shared->held[admission->owner], 1, memory_order_relaxed);
}

static void wake_waiting(struct admission_shared *shared)
{
	uint64_t one = 1;

	if (atomic_load(&shared->waiting) > 0 && write(shared->room, &one, sizeof one) < 0)
		return; /* EAGAIN: it is readable already */
}

void admission_give_place(const struct admission *admission)
{
	atomic_fetch_sub_explicit(&admission->shared->held[admission->owner], 1, memory_order_relaxed);
	atomic_fetch_sub(&admission->shared->places, 1);
	wake_waiting(admission->shared);
}

bool admission_hold_place(const struct admission *admission, uint32_t most)
{
	struct admission_shared *shared = admission->shared;

	atomic_fetch_add(&shared->places, 1);
	if (atomic_fetch_add(&shared->held[admission->owner], 1) < most)
		return true;
	admission_give_place(admission);
	return false;
}

int admission_room_fd(const struct admission_shared *shared)
{
	return shared->room;
}

void admission_wait(const struct admission *admission)
{
	uint64_t count;

	/* what was written for earlier waiters must not wake us over and over */
	if (read(admission->shared->room, &count, sizeof count) < 0)
		count = 0;
	atomic_fetch_add(&admission->shared->waiting, 1);
}

void admission_wait_done(const struct admission *admission)
{
	struct admission_shared *shared = admission->shared;

	atomic_fetch_sub(&shared->waiting, 1);
	/* more than one place may have become free under one wake-up: pass it on */
	if (atomic_load(&shared->places) < admission->max_connections)
		wake_waiting(shared);
}

uint32_t admission_places_taken(const struct admission_shared *shared)
{
	return atomic_load(&shared->places);
}

/* --- sources --------------------------------------------------------------------------- */

static void sources_repair(struct admission_shared *shared);

/* The mutex is robust: its owner may be killed. */
static void sources_lock(struct admission_shared *shared)
{
	if (pthread_mutex_lock(&shared->lock) != EOWNERDEAD)
		return;
	sources_repair(shared);
	pthread_mutex_consistent(&shared->lock);
}

static uint64_t source_key(const struct peer *peer)
{
	uint64_t key = 0;

	if (peer->family == AF_INET) {
		uint32_t address;

		memcpy(&address, peer->address, sizeof address);
		return UINT64_C(1) << 32 | address;
	}
	memcpy(&key, peer->address, sizeof key);
	/* turned over, so that no prefix in use looks like an IPv4 address */
	return key ^ UINT64_C(0x9e3779b97f4a7c15);
}

static uint32_t source_home(const struct admission_shared *shared, uint64_t key)
{
	return (uint32_t) siphash(&shared->hash_key, &key, sizeof key) & shared->sources_mask;
}

/* The entry of (key, owner), or the free one where it would go; `*total` counts the source
 * over all owners. */
static struct source *source_find(struct admission_shared *shared, uint64_t key, uint32_t owner, uint32_t *total)
{
	struct source *found = NULL, *source;

	*total = 0;
	for (uint32_t at = source_home(shared, key);; at = (at + 1) & shared->sources_mask) {
		source = &shared->sources[at];
		if (source->count == 0)
			return found ? found : source;
		if (source->key != key)
			continue;
		*total += source->count;
		if (source->owner == owner)
			found = source;
	}
}

/* Whoever is killed in the middle of it leaves a free entry or a right one behind, never one made of two. */
static void source_put(struct source *at, const struct source *source)
{
	at->count = 0;
	atomic_signal_fence(memory_order_seq_cst);
	at->key = source->key;
	at->owner = source->owner;
	atomic_signal_fence(memory_order_seq_cst);
	at->count = source->count;
}

/* Free an entry and close the gap, so that no search ends too early (Knuth 6.4, algorithm R). */
static void source_remove(struct admission_shared *shared, uint32_t gap)
{
	uint32_t mask = shared->sources_mask;

	shared->sources_used--;
	for (uint32_t at = (gap + 1) & mask; shared->sources[at].count > 0; at = (at + 1) & mask) {
		uint32_t home = source_home(shared, shared->sources[at].key);

		if (((at - home) & mask) >= ((at - gap) & mask)) {
			source_put(&shared->sources[gap], &shared->sources[at]);
			gap = at;
		}
	}
	shared->sources[gap].count = 0;
}

/* One entry may be there twice, and be found in neither place, and the number of used ones be wrong: put each where
 * it belongs, beginning after a free one, so that nothing is moved away from where a later one looks for it. */
static void sources_repair(struct admission_shared *shared)
{
	uint32_t mask = shared->sources_mask, start = 0, total;

	while (shared->sources[start].count > 0)
		start++;
	shared->sources_used = 0;
	for (uint32_t i = 1; i <= mask; i++) {
		struct source *source = &shared->sources[(start + i) & mask], moved = *source, *place;

		if (moved.count == 0)
			continue;
		source->count = 0;
		place = source_find(shared, moved.key, moved.owner, &total);
		if (place->count > 0)
			continue;
		source_put(place, &moved);
		shared->sources_used++;
	}
}

/* Count one more of `owner`. With the lock held, as the next. */
static bool source_add(struct admission_shared *shared, uint64_t key, uint32_t owner, uint32_t most)
{
	uint32_t total;
	struct source *source = source_find(shared, key, owner, &total);

	if (total >= most || (source->count == 0 && shared->sources_used >= shared->sources_mask / 4 * 3))
		return false;
	if (source->count > 0) {
		source->count++;
	} else {
		source_put(source, &(struct source) { .key = key, .owner = owner, .count = 1 });
		shared->sources_used++;
	}
	return true;
}

static void source_subtract(struct admission_shared *shared, uint64_t key, uint32_t owner)
{
	uint32_t total;
	struct source *source = source_find(shared, key, owner, &total);

	if (source->count == 1)
		source_remove(shared, (uint32_t) (source - shared->sources));
	else if (source->count > 1)
		source->count--;
}

static bool source_take(const struct admission *admission, const struct peer *peer, uint32_t most)
{
	bool ok;

	sources_lock(admission->shared);
	ok = source_add(admission->shared, source_key(peer), admission->owner, most);
	pthread_mutex_unlock(&admission->shared->lock);
	return ok;
}

static bool source_is_limited(const struct admission *admission, const struct peer *peer)
{
	return peer->family != AF_UNIX && admission->max_per_source > 0;
}

enum admission_verdict admission_admit(const struct admission *admission, const struct peer *peer)
{
	struct addr addr;

	if (peer->family == AF_UNIX)
		return ADMISSION_OK;
	if (admission->deny->count > 0 || admission->allow->count > 0) {
		peer_to_addr(peer, &addr);
		if (network_set_match(admission->deny, &addr))
			return ADMISSION_DENIED;
		if (admission->allow->count > 0 && !network_set_match(admission->allow, &addr))
			return ADMISSION_DENIED;
	}
	if (source_is_limited(admission, peer) && !source_take(admission, peer, admission->max_per_source))
		return ADMISSION_SOURCE;
	return ADMISSION_OK;
}

void admission_leave(const struct admission *admission, const struct peer *peer)
{
	if (!source_is_limited(admission, peer))
		return;
	sources_lock(admission->shared);
	source_subtract(admission->shared, source_key(peer), admission->owner);
	pthread_mutex_unlock(&admission->shared->lock);
}

/* Under one lock: nobody sees the connection counted twice, or not at all. Who counts no sources may still have to
 * take one from the queue, where somebody else put it. */
static void source_move(const struct admission *admission, const struct peer *peer, uint32_t from, uint32_t to)
{
	struct admission_shared *shared = admission->shared;

	if (peer->family == AF_UNIX)
		return;
	sources_lock(shared);
	if (shared->sources_used > 0)
		source_subtract(shared, source_key(peer), from);
	if (admission->max_per_source > 0)
		(void) source_add(shared, source_key(peer), to, UINT32_MAX);
	pthread_mutex_unlock(&shared->lock);
}

void admission_enqueue(const struct admission *admission, const struct peer *peer)
{
	struct admission_shared *shared = admission->shared;

	if (source_is_limited(admission, peer))
		source_move(admission, peer, admission->owner, shared->queue);
	atomic_fetch_add_explicit(&shared->held[shared->queue], 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&shared->held[admission->owner], 1, memory_order_relaxed);
}

/* False where the queue holds none of ours. */
static bool queue_subtract(struct admission_shared *shared)
{
	uint32_t held = atomic_load_explicit(&shared->held[shared->queue], memory_order_relaxed);

	while (held > 0)
		if (atomic_compare_exchange_weak(&shared->held[shared->queue], &held, held - 1))
			return true;
	return false;
}

void admission_dequeue(const struct admission *admission, const struct peer *peer)
{
	struct admission_shared *shared = admission->shared;

	if (peer)
		source_move(admission, peer, shared->queue, admission->owner);
	if (!queue_subtract(shared))
		return;
	atomic_fetch_sub(&shared->places, 1);
	wake_waiting(shared);
}

void admission_take_back(const struct admission *admission, const struct peer *peer)
{
	struct admission_shared *shared = admission->shared;

	if (source_is_limited(admission, peer))
		source_move(admission, peer, shared->queue, admission->owner);
	if (!queue_subtract(shared))
		atomic_fetch_add(&shared->places, 1); /* it was taken for one that is lost: see admission_forget_queue() */
	atomic_fetch_add_explicit(&shared->held[admission->owner], 1, memory_order_relaxed);
}

void admission_forget_queue(struct admission_shared *shared)
{
	if (atomic_load(&shared->held[shared->queue]) > 0)
		admission_forget_owner(shared, shared->queue);
}

void admission_forget_owner(struct admission_shared *shared, uint32_t owner)
{
	uint32_t held = atomic_exchange(&shared->held[owner], 0), at = 0;

	atomic_fetch_sub(&shared->places, held);
	if (held > 0)
		wake_waiting(shared);
	sources_lock(shared);
	while (at <= shared->sources_mask && shared->sources_used > 0) {
		if (shared->sources[at].count > 0 && shared->sources[at].owner == owner)
			source_remove(shared, at); /* another may have moved here: look again */
		else
			at++;
	}
	pthread_mutex_unlock(&shared->lock);
}

uint32_t admission_source_count(const struct admission *admission, const struct peer *peer)
{
	uint32_t total;

	sources_lock(admission->shared);
	source_find(admission->shared, source_key(peer), admission->owner, &total);
	pthread_mutex_unlock(&admission->shared->lock);
	return total;
}
