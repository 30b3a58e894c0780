/* worker.c - see worker.h */
#include <config.h>

#include "client/load/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "client/load/connect.h"

#define REST (TICKS_SECOND / 100)

int worker_init(struct worker *worker, struct run *run, unsigned number, unsigned first, unsigned count)
{
	const struct options *options = run->options;
	size_t each = flow_stamps_needed(options->depth);

	*worker = (struct worker) { .run = run, .number = number, .count = count, .alive = count };
	worker->wake = eventfd(0, EFD_CLOEXEC);
	worker->flows = calloc(count, sizeof(*worker->flows));
	worker->stamps = calloc(count * each, sizeof(*worker->stamps));
	worker->resting = calloc(count, sizeof(*worker->resting));
	worker->rest_until = calloc(count, sizeof(*worker->rest_until));
	if (worker->wake < 0)
		return -errno;
	if (!worker->flows || !worker->stamps || !worker->resting || !worker->rest_until)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++)
		flow_init(&worker->flows[i], first + i, (uint32_t) options->size, options->depth, worker->stamps + i * each);
	if (options->rate > 0)
		worker->interval = 1e9 * options->connections / ((double) options->rate * count);
	histogram_clear(&worker->histogram);
	return 0;
}

void worker_clear(struct worker *worker)
{
	for (unsigned i = 0; worker->flows != NULL && i < worker->count; i++)
		if (worker->flows[i].fd >= 0)
			close(worker->flows[i].fd);
	free(worker->flows);
	free(worker->stamps);
	free(worker->resting);
	free(worker->rest_until);
	if (worker->wake >= 0)
		close(worker->wake);
}

/* --- the thread --------------------------------------------------------------------------------------------- */

static void coordinator_tell(struct run *run, _Atomic unsigned *count)
{
	uint64_t one = 1;

	atomic_fetch_add(count, 1);
	if (write(run->report, &one, sizeof(one)) < 0)
		return; /* only at 2^64 - 1 news: it is awake */
}

void *worker_thread(void *argument)
{
	struct worker *worker = argument;
	struct run *run = worker->run;
	uint64_t news;
	int r;

	/* Wake-ups of an open loop are wanted when asked for, not 50 us later. */
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	r = opener_open(worker);
	coordinator_tell(run, &run->opened);
	if (read(worker->wake, &news, sizeof(news)) == (ssize_t) sizeof(news) && atomic_load(&run->go) && r == 0) {
		fcntl(worker->wake, F_SETFL, O_NONBLOCK);
		worker->now = atomic_load(&run->begin);
		r = run->engine->run(worker);
		if (r < 0)
			worker_fault(worker, NULL, run->engine->name, -r);
	}
	coordinator_tell(run, &run->finished);
	return NULL;
}

void worker_fault(struct worker *worker, const struct flow *flow, const char *what, int error)
{
	int used = 0;

	if (worker->fault[0] != '\0')
		return;
	if (flow != NULL)
		used = snprintf(worker->fault, sizeof(worker->fault), "connection %u: ", flow->index + 1);
	snprintf(worker->fault + used, sizeof(worker->fault) - (size_t) used, "%s%s%s", what, error != 0 ? ": " : "",
		 error != 0 ? strerror(error) : "");
}

/* --- phases ------------------------------------------------------------------------------------------------- */

/* What this thread used of a processor, and how long it had to wait for one. */
static void usage_read(uint64_t *cpu, uint64_t *delay)
{
	struct timespec used;
	char text[80], *waited = NULL;
	FILE *file;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	*cpu = (uint64_t) used.tv_sec * TICKS_SECOND + (uint64_t) used.tv_nsec;
	*delay = 0;
	file = fopen("/proc/thread-self/schedstat", "re");
	if (file == NULL)
		return;
	/* The time run, the time waited, and more. */
	if (fgets(text, sizeof(text), file) != NULL)
		waited = strchr(text, ' ');
	if (waited != NULL)
		*delay = strtoull(waited, NULL, 10);
	fclose(file);
}

static void measure_end(struct worker *worker)
{
	uint64_t cpu, delay;

	usage_read(&cpu, &delay);
	worker->cpu = cpu - worker->cpu_from;
	worker->delay = delay - worker->delay_from;
	/* In an open loop what was due while measuring counts, however late it comes: a server that stalls at the end
	 * cannot hide it. In a closed one what comes back while measuring does. */
	if (worker->interval == 0)
		worker->measured = NULL;
}

/* From here on nothing is begun. */
static void drain_begin(struct worker *worker)
{
	worker->unsettled = 0;
	for (unsigned i = 0; i < worker->count; i++)
		worker->unsettled += !worker->flows[i].dead;
	for (unsigned i = 0; i < worker->count; i++) {
		struct flow *flow = &worker->flows[i];

		worker->unsent += flow->due;
		flow->due = 0;
		if (flow->depth == 0)
			flow->granted = flow->sent;
		worker_settle(worker, flow);
	}
}

/* What has not come back by now is lost. */
static void drain_give_up(struct worker *worker)
{
	uint64_t lost = 0;
	bool missing = false;

	for (unsigned i = 0; i < worker->count; i++) {
		if (!worker->flows[i].dead) {
			missing |= worker->flows[i].sent != worker->flows[i].received; /* of a stream no message is lost, but bytes */
			lost += flow_abandon(&worker->flows[i]);
		}
	}
	tally_add(&worker->tally.lost, lost);
	if (lost > 0 || missing)
		worker_fault(worker, NULL, "what was under way at the end did not come back within the time-out", 0);
	worker->unsettled = 0;
}

static void phase_advance(struct worker *worker)
{
	struct run *run = worker->run;

	if (worker->phase == PHASE_WARM && worker->now >= atomic_load_explicit(&run->measure_from, memory_order_relaxed)) {
		worker->phase = PHASE_MEASURE;
		worker->measured = &worker->histogram;
		worker->since = worker->interval > 0 ? atomic_load_explicit(&run->measure_from, memory_order_relaxed) : 0;
		usage_read(&worker->cpu_from, &worker->delay_from);
	}
	if (worker->phase <= PHASE_MEASURE && worker->now >= atomic_load_explicit(&run->measure_to, memory_order_relaxed)) {
		if (worker->phase == PHASE_MEASURE)
			measure_end(worker);
		worker->phase = PHASE_DRAIN;
		drain_begin(worker);
	}
	if (worker->phase <= PHASE_MEASURE && worker->alive == 0) {
		if (worker->phase == PHASE_MEASURE)
			measure_end(worker);
		worker->phase = PHASE_OVER;
	}
	if (worker->phase == PHASE_DRAIN && worker->unsettled > 0
	    && worker->now >= atomic_load_explicit(&run->drain_to, memory_order_relaxed))
		drain_give_up(worker);
	if (worker->phase == PHASE_DRAIN && worker->unsettled == 0)
		worker->phase = PHASE_OVER;
}

void worker_settle(struct worker *worker, struct flow *flow)
{
	if (worker->phase != PHASE_DRAIN || flow->settled || flow->dead || flow->granted != flow->received)
		return;
	flow->settled = true;
	worker->unsettled--;
}

/* --- who may begin ------------------------------------------------------------------------------------------ */

static uint64_t tick_time(const struct worker *worker, uint64_t tick)
{
	return atomic_load_explicit(&worker->run->begin, memory_order_relaxed) + (uint64_t) ((double) tick * worker->interval);
}

void worker_refill(struct worker *worker, struct flow *flow)
{
	if (worker->phase >= PHASE_DRAIN || !flow->active || flow->dead)
		return;
	if (flow->depth == 0) {
		flow_grant(flow, worker->run->window);
	} else if (worker->interval > 0) {
		for (; flow->due > 0 && flow_has_room(flow); flow->due--) {
			flow_start(flow, tick_time(worker, flow->due_tick));
			flow->due_tick += worker->count;
		}
	} else {
		while (flow_has_room(flow))
			flow_start(flow, worker->now);
	}
}

/* Bring in those whose turn has come by --ramp. Returns when the next one's will. */
static uint64_t ramp_advance(struct worker *worker, void (*push)(struct worker *, struct flow *))
{
	const struct options *options = worker->run->options;
	uint64_t begin = atomic_load_explicit(&worker->run->begin, memory_order_relaxed);

	while (worker->active < worker->count) {
		uint64_t turn = begin + (uint64_t) ((double) options->ramp * worker->active / worker->count);
		struct flow *flow = &worker->flows[worker->active];

		if (turn > worker->now)
			return turn;
		worker->active++;
		flow->active = true;
		if (worker->interval == 0 && !flow->dead)
			push(worker, flow);
	}
	return TICKS_NEVER;
}

/* Note all that became due; after the end of the measuring nothing does. Returns when the next message will. */
static uint64_t ticks_advance(struct worker *worker, void (*push)(struct worker *, struct flow *))
{
	uint64_t end = atomic_load_explicit(&worker->run->measure_to, memory_order_relaxed);

	for (;;) {
		struct flow *flow = &worker->flows[worker->tick % worker->count];
		uint64_t when = tick_time(worker, worker->tick);

		if (when >= end)
			return TICKS_NEVER;
		if (when > worker->now)
			return when;
		if (flow->active && !flow->dead) {
			if (flow->due++ == 0)
				flow->due_tick = worker->tick;
			push(worker, flow);
		}
		worker->tick++;
	}
}

static uint64_t rest_advance(struct worker *worker, void (*push)(struct worker *, struct flow *))
{
	/* As many as there are now: a push may put its flow to rest again. */
	for (unsigned n = worker->rest_count; n > 0; n--) {
		unsigned first = worker->rest_first;

		if (worker->rest_until[first] > worker->now)
			return worker->rest_until[first];
		worker->rest_first = (first + 1) % worker->count;
		worker->rest_count--;
		push(worker, &worker->flows[worker->resting[first]]);
	}
	return worker->rest_count > 0 ? worker->rest_until[worker->rest_first] : TICKS_NEVER;
}

void worker_rest(struct worker *worker, struct flow *flow)
{
	unsigned slot = (worker->rest_first + worker->rest_count++) % worker->count;

	worker->resting[slot] = (uint32_t) (flow - worker->flows);
	worker->rest_until[slot] = worker->now + REST;
}

uint64_t worker_turn(struct worker *worker, void (*push)(struct worker *worker, struct flow *flow))
{
	uint64_t next = TICKS_NEVER, when;

	worker->now = ticks_now();
	if (worker->active < worker->count && worker->phase < PHASE_DRAIN)
		next = ramp_advance(worker, push);
	/* Before the phase changes: what was due in it is begun, or at least known. */
	if (worker->interval > 0 && worker->phase < PHASE_DRAIN) {
		when = ticks_advance(worker, push);
		next = when < next ? when : next;
	}
	phase_advance(worker);
	if (worker->phase >= PHASE_DRAIN)
		next = atomic_load_explicit(&worker->run->drain_to, memory_order_relaxed);
	/* In the drain too: some rest with a message that was begun, until they can connect. */
	if (worker->rest_count > 0 && worker->phase != PHASE_OVER) {
		when = rest_advance(worker, push);
		next = when < next ? when : next;
	}
	/* One that failed just now may have been the last that was awaited. */
	return worker->phase == PHASE_DRAIN && worker->unsettled == 0 ? worker->now : next;
}

/* --- what came back ----------------------------------------------------------------------------------------- */

int worker_received(struct worker *worker, struct flow *flow, const void *bytes, size_t length)
{
	uint64_t fault;
	int64_t finished = flow_received(flow, bytes, length, worker->since, worker->now, worker->measured,
					 &fault);
	char text[96];

	if (finished < 0) {
		snprintf(text, sizeof(text), "the byte at offset %llu of its stream came back different or was never sent",
			 (unsigned long long) fault);
		tally_add(&worker->tally.mismatches, 1);
		worker_fault(worker, flow, text, 0);
		return -EBADMSG;
	}
	tally_add(&worker->tally.received, length);
	if (worker->measured != NULL) {
		tally_add(&worker->tally.bytes, length);
		if (finished > 0)
			tally_add(&worker->tally.echoes, (uint64_t) finished);
	}
	return 0;
}

void worker_lost(struct worker *worker, struct flow *flow, const char *what, int error)
{
	if (what != NULL) {
		worker_fault(worker, flow, what, error);
		tally_add(&worker->tally.errors, 1);
	}
	tally_add(&worker->tally.lost, flow_abandon(flow));
	flow->state = FLOW_CLOSED;
	if (worker->run->options->mode == LOAD_CONNECT) {
		if (worker->phase < PHASE_DRAIN)
			worker_rest(worker, flow);
		worker_settle(worker, flow);
		return;
	}
	if (worker->phase == PHASE_DRAIN && !flow->settled)
		worker->unsettled--;
	flow->dead = true;
	worker->alive--;
}
