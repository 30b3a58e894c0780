/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "echo/stats.h"

#include <inttypes.h>
#include <string.h>

static const struct {
	const char *name, *labels, *help;
} rows[STATS_COUNT] = {
#define X(id, name, labels, help) [id] = { name, labels, help },
	STATS_COUNTERS(X)
#undef X
};

void stats_slot_free(struct stats_slot *slot)
{
	atomic_store(&slot->live, 0);
	atomic_store(&slot->unsent, 0);
	atomic_store(&slot->pid, 0);
	atomic_store(&slot->blocked, 0);
	/* must be last: afterwards another worker may use the slot */
	atomic_store(&slot->state, SLOT_FREE);
}

void stats_write_openmetrics(const struct stats_total *total, FILE *out)
{
	const char *last = "";

	fputs("# TYPE echod_connections gauge\n# HELP echod_connections Connections being served\n", out);
	fprintf(out, "echod_connections %" PRIu64 "\n", total->live);
	for (size_t i = 0; i < STATS_COUNT; i++) {
		if (strcmp(last, rows[i].name) != 0)
			fprintf(out, "# TYPE echod_%s counter\n# HELP echod_%s %s\n", rows[i].name,
			        rows[i].name, rows[i].help);
		last = rows[i].name;
		fprintf(out, "echod_%s_total%s%s%s %" PRIu64 "\n", rows[i].name, *rows[i].labels ? "{" : "",
		        rows[i].labels, *rows[i].labels ? "}" : "", total->counters[i]);
	}
}

const char *stats_name(enum stats_counter counter)
{
	return rows[counter].name;
}

const char *stats_labels(enum stats_counter counter)
{
	return rows[counter].labels;
}
