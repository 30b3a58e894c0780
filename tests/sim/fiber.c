/* SPDX-License-Identifier: ISC */
/* fiber.c - random numbers, clock, events, fibers, faults, report of a failure: see sim.h */
#include <config.h>
#undef _FORTIFY_SOURCE /* longjmp(3) between stacks is intended */

#include "sim.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);

#define STACK_SIZE (512U << 10)
#define FIBERS_MAX 512
#define NOTES 400

/* Maximum number of waits in a row that end at once while a fiber changes nothing (64 in the daemon). */
#define SPIN_MAX 200

struct sim sim;

struct machine {
	jmp_buf registers;
	ucontext_t context;
	void *stack;
	void *fake_stack; /* of the address sanitizer */
	bool started;
};

struct event {
	int64_t time;
	uint64_t order;
	void *object;
	uint32_t generation;
	enum event_kind kind;
};

static struct {
	struct fiber fibers[FIBERS_MAX];
	struct machine machines[FIBERS_MAX];
	unsigned fiber_count;
	struct fiber *self;
	struct fiber *ready[FIBERS_MAX];
	unsigned ready_count;
	struct event *heap;
	size_t count, size;
	uint64_t order;
	struct {
		int64_t time, a, b;
		const char *what;
		unsigned fiber;
	} notes[NOTES];
	size_t noted;
} all;

/* --- random numbers --------------------------------------------------------------------- */

uint64_t sim_random(void)
{
	/* splitmix64 */
	uint64_t z = sim.state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t limit)
{
	return limit > 1 ? sim_random() % limit : 0;
}

uint64_t sim_spread(uint64_t low, uint64_t high)
{
	unsigned bits = 0;
	uint64_t range = high > low ? high - low : 0;

	while (range >> bits > 0)
		bits++;
	return low + sim_below((range >> sim_below(bits + 1U)) + 1);
}

bool sim_chance(unsigned per_million)
{
	return per_million > 0 && sim_random() % 1000000 < per_million;
}

bool sim_fault(enum fault fault)
{
	if (!sim.running || !all.self->steady || !sim_chance(sim.fault[fault]))
		return false;
	sim.faults[fault]++;
	switch (fault) {
	case FAULT_MEMORY:
	case FAULT_EPOLL:
	case FAULT_THREAD:
	case FAULT_MEMFILE:
		sim.excuses++;
		sim.failed_at = sim.now;
		break;
	case FAULT_ACCEPT:
	case FAULT_WAIT_MEMORY: sim.failed_at = sim.now; break;
	default: break;
	}
	return true;
}

/* --- report ----------------------------------------------------------------------------- */

void sim_note(const char *what, int64_t a, int64_t b)
{
	size_t at = all.noted++ % NOTES;

	all.notes[at].time = sim.now;
	all.notes[at].what = what;
	all.notes[at].a = a;
	all.notes[at].b = b;
	all.notes[at].fiber = all.self ? all.self->number : 0;
}

void sim_fail(const char *format, ...)
{
	va_list ap;

	sim.running = false;
	for (size_t i = all.noted > NOTES ? all.noted - NOTES : 0; i < all.noted; i++)
		printf("# %" PRId64 ".%06d fiber %u: %s %" PRId64 " %" PRId64 "\n",
		       all.notes[i % NOTES].time / SEC, (int) (all.notes[i % NOTES].time % SEC),
		       all.notes[i % NOTES].fiber, all.notes[i % NOTES].what, all.notes[i % NOTES].a,
		       all.notes[i % NOTES].b);
	printf("# FAILED at %" PRId64 ".%06d, fiber %u: ", sim.now / SEC, (int) (sim.now % SEC),
	       all.self ? all.self->number : 0);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n# after %" PRIu64 " events; repeat with SIM_SEED=%" PRIu64 " SIM_EVENTS=1\n", sim.events,
	       sim.seed);
	fflush(stdout);
	_Exit(1);
}

/* --- events ----------------------------------------------------------------------------- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->time < b->time || (a->time == b->time && a->order < b->order);
}

void sim_at(int64_t time, enum event_kind kind, void *object, uint32_t generation)
{
	struct event event = { time, all.order++, object, generation, kind };
	size_t at = all.count++;

	if (all.count > all.size) {
		all.size = all.size > 0 ? 2 * all.size : 1024;
		all.heap = realloc(all.heap, all.size * sizeof *all.heap);
		if (!all.heap)
			abort();
	}
	for (; at > 0 && is_before(&event, &all.heap[(at - 1) / 2]); at = (at - 1) / 2)
		all.heap[at] = all.heap[(at - 1) / 2];
	all.heap[at] = event;
}

static struct event event_take(void)
{
	struct event first = all.heap[0], last = all.heap[--all.count];
	size_t at = 0;

	for (size_t child = 1; child < all.count; at = child, child = 2 * at + 1) {
		if (child + 1 < all.count && is_before(&all.heap[child + 1], &all.heap[child]))
			child++;
		if (!is_before(&all.heap[child], &last))
			break;
		all.heap[at] = all.heap[child];
	}
	all.heap[at] = last;
	return first;
}

static void event_run(const struct event *event)
{
	if (event->time > sim.now)
		sim.now = event->time;
	switch (event->kind) {
	case EVENT_ARRIVE:
	case EVENT_OPERATOR:
	case EVENT_HEARTBEAT: operator_event(event->kind, event->object, event->generation); break;
	default: sim.events++; stream_event(event->kind, event->object, event->generation);
	}
}

/* --- fibers ----------------------------------------------------------------------------- */

struct fiber *fiber_self(void)
{
	return all.self;
}

void fiber_wake(struct fiber *fiber)
{
	if (fiber->runnable || fiber->ended || !fiber->waiting)
		return;
	fiber->runnable = true;
	all.ready[all.ready_count++] = fiber;
}

static void __attribute__((noreturn)) fiber_main(void)
{
	struct fiber *self = all.self;

#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
	self->main(self);
	self->ended = true;
	self->waiting = true;
	(void) fiber_wait(INT64_MAX);
	abort();
}

static void __attribute__((noinline)) machine_prepare(struct machine *machine)
{
	if (!machine->stack) {
		machine->stack = __real_mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
		                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (machine->stack == MAP_FAILED)
			abort();
	}
	machine->started = false;
	machine->fake_stack = NULL;
	if (getcontext(&machine->context) < 0)
		abort();
	machine->context.uc_stack.ss_sp = machine->stack;
	machine->context.uc_stack.ss_size = STACK_SIZE;
	machine->context.uc_link = NULL;
	makecontext(&machine->context, fiber_main, 0);
}

struct fiber *fiber_start(struct process *process, void (*run)(struct fiber *), void *argument)
{
	struct fiber *fiber = NULL;
	struct machine *machine;

	for (unsigned i = 1; i < all.fiber_count && !fiber; i++)
		if (all.fibers[i].ended && all.self != &all.fibers[i])
			fiber = &all.fibers[i];
	if (!fiber) {
		if (all.fiber_count == FIBERS_MAX)
			sim_fail("too many fibers");
		fiber = &all.fibers[all.fiber_count++];
	}
	machine = &all.machines[fiber - all.fibers];
	*fiber = (struct fiber) { .process = process,
		                  .main = run,
		                  .argument = argument,
		                  .machine = machine,
		                  .wait = fiber->wait + 1,
		                  .number = (unsigned) (fiber - all.fibers),
		                  .waiting = true };
	machine_prepare(machine);
	fiber_wake(fiber);
	return fiber;
}

static void switch_to(struct fiber *fiber)
{
	struct fiber *self = all.self;

	if (fiber == self)
		return;
	sim.switches++;
	all.self = fiber;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(self->ended ? NULL : &self->machine->fake_stack, fiber->machine->stack,
	                               STACK_SIZE);
#endif
	if (_setjmp(self->machine->registers) == 0) {
		if (fiber->machine->started)
			_longjmp(fiber->machine->registers, 1);
		fiber->machine->started = true;
		setcontext(&fiber->machine->context);
		abort();
	}
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(self->machine->fake_stack, NULL, NULL);
#endif
}

/* Run a ready fiber, chosen at random. Returns when the calling fiber runs again. */
static void run_ready(void)
{
	size_t i = (size_t) sim_below(all.ready_count);
	struct fiber *fiber = all.ready[i];

	all.ready[i] = all.ready[--all.ready_count];
	fiber->runnable = fiber->waiting = false;
	switch_to(fiber);
}

/* The fiber with the earliest deadline; NULL: none has a deadline. */
static struct fiber *next_timeout(void)
{
	struct fiber *first = NULL;

	for (unsigned i = 0; i < all.fiber_count; i++) {
		struct fiber *fiber = &all.fibers[i];

		if (!fiber->ended && fiber->waiting && !fiber->runnable && fiber->deadline != INT64_MAX &&
		    (!first || fiber->deadline < first->deadline))
			first = fiber;
	}
	return first;
}

/* Run the next event or time-out. */
static void step(void)
{
	struct fiber *fiber = next_timeout();
	int64_t next = fiber ? fiber->deadline : INT64_MAX;
	struct event event;

	if (all.count > 0 && all.heap[0].time < next)
		next = all.heap[0].time;
	if (next == INT64_MAX)
		sim_fail("every fiber waits for ever");
	if (next > sim.now && all.ready_count == 0)
		check_quiet(next);
	if (fiber && fiber->deadline <= next) {
		if (fiber->deadline > sim.now)
			sim.now = fiber->deadline;
		sim.timeouts++;
		fiber->timed_out = true;
		fiber_wake(fiber);
		return;
	}
	event = event_take();
	event_run(&event);
}

bool fiber_wait(int64_t deadline)
{
	struct fiber *self = all.self;

	self->wait++;
	self->deadline = self->ended ? INT64_MAX : deadline;
	self->timed_out = false;
	self->waiting = true;
	while (self->waiting || self->ended) {
		/* a ready fiber may have to wait for a processor */
		bool late = all.ready_count > 0 && sim_chance(sim.late) && all.count > 0 &&
		            all.heap[0].time <= sim.now + MSEC;

		if (all.ready_count > 0 && !late)
			run_ready();
		else
			step();
	}
	return !self->timed_out;
}

void sim_call(void)
{
	sim.calls++;
	sim.now += (int64_t) sim_below(sim.call_usec + 1);
	if (!sim.preempting || !sim_chance(sim.preempt))
		return;
	while (all.count > 0 && all.heap[0].time <= sim.now) {
		struct event event = event_take();

		event_run(&event);
	}
	if (sim_below(2) == 0)
		sim_yield();
}

void sim_yield(void)
{
	if (!sim.running || !sim.preempting || sim.locked || all.ready_count == 0)
		return;
	all.self->waiting = true;
	all.self->deadline = sim.now;
	fiber_wake(all.self);
	run_ready();
}

void sim_access(void)
{
	if (sim_chance(sim.access))
		sim_yield();
}

void sim_lock(bool locked)
{
	sim.locked = locked;
}

void fiber_check_spin(void)
{
	struct fiber *self = all.self;

	if (self->progress != self->progress_seen)
		self->idle = 0;
	self->progress_seen = self->progress;
	if (++self->idle > SPIN_MAX)
		sim_fail("a fiber spins: %u waits in a row ended at once, and nothing was done", self->idle);
}

/* --- episodes --------------------------------------------------------------------------- */

void sim_begin(uint64_t seed)
{
	sim.seed = seed;
	sim.state = seed * UINT64_C(0xd1342543de82ef95) + 1;
	sim.now = SEC * 1000 + (int64_t) sim_below((uint64_t) SEC);
	sim.failed_at = sim.queue_full_at = INT64_MIN / 2;
	sim.excuses = 0;
	all.count = 0;
	all.order = 0;
	all.noted = 0;
	all.ready_count = 0;
	if (all.fiber_count == 0)
		all.fiber_count = 1;
	all.fibers[0] = (struct fiber) { .machine = &all.machines[0] };
	all.machines[0].started = true;
	all.self = &all.fibers[0];
	for (unsigned i = 1; i < all.fiber_count; i++)
		all.fibers[i] = (struct fiber) { .ended = true, .number = i, .machine = &all.machines[i] };
}

void sim_end(void)
{
	for (unsigned i = 1; i < all.fiber_count; i++)
		if (!all.fibers[i].ended)
			sim_fail("fiber %u has not ended", i);
	all.count = 0;
}
