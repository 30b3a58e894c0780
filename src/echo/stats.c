#include <config.h>

#include "echo/stats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct {
	const char *name, *labels, *help;
} rows[STATS_COUNT] = {
#define X(id, name, labels, help) [id] = { name, labels, help },
	STATS_COUNTERS(X)
#undef X
};

static size_t board_size(uint32_t slots)
{
	return sizeof(struct stats_board) + (size_t) slots * sizeof(struct stats_slot);
}

struct stats_board *stats_board_make(uint32_t slots)
{
	struct stats_board *board = mmap(NULL, board_size(slots), PROT_READ | PROT_WRITE,
	                                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (board == MAP_FAILED)
		return NULL;
	board->slots_count = slots;
	return board;
}

void stats_board_free(struct stats_board *board)
{
	if (board)
		munmap(board, board_size(board->slots_count));
}

void stats_slot_use(struct stats_board *board, uint32_t number)
{
	uint32_t used = atomic_load_explicit(&board->slots_used, memory_order_relaxed);

	while (used <= number && !atomic_compare_exchange_weak(&board->slots_used, &used, number + 1))
		;
}

uint32_t stats_slot_free(struct stats_slot *slot)
{
	uint32_t live = atomic_exchange(&slot->live, 0);

	atomic_store(&slot->unsent, 0);
	atomic_store(&slot->pid, 0);
	/* last: from here on it may be another's */
	atomic_store(&slot->state, SLOT_FREE);
	return live;
}

void stats_total(const struct stats_board *board, struct stats_total *total)
{
	memset(total, 0, sizeof *total);
	for (size_t i = 0; i < STATS_COUNT; i++)
		total->counters[i] = atomic_load_explicit(&board->others.counters[i], memory_order_relaxed);
	for (uint32_t s = 0; s < board->slots_used; s++) {
		const struct stats_slot *slot = &board->slots[s];

		total->live += atomic_load_explicit(&slot->live, memory_order_relaxed);
		total->unsent += atomic_load_explicit(&slot->unsent, memory_order_relaxed);
		for (size_t i = 0; i < STATS_COUNT; i++)
			total->counters[i] += atomic_load_explicit(&slot->counters[i], memory_order_relaxed);
	}
}

void stats_write_openmetrics(const struct stats_total *total, FILE *out)
{
	const char *last = "";

	fputs("# TYPE echod_connections gauge\n# HELP echod_connections Connections being served\n", out);
	fprintf(out, "echod_connections %" PRIu64 "\n", total->live);
	for (size_t i = 0; i < STATS_COUNT; i++) {
		if (strcmp(last, rows[i].name) != 0)
			fprintf(out, "# TYPE echod_%s counter\n# HELP echod_%s %s\n", rows[i].name, rows[i].name, rows[i].help);
		last = rows[i].name;
		fprintf(out, "echod_%s_total%s%s%s %" PRIu64 "\n", rows[i].name, *rows[i].labels ? "{" : "",
		        rows[i].labels, *rows[i].labels ? "}" : "", total->counters[i]);
	}
	fputs("# EOF\n", out);
}

const char *stats_name(enum stats_counter counter)
{
	return rows[counter].name;
}

const char *stats_labels(enum stats_counter counter)
{
	return rows[counter].labels;
}
