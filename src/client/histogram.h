/* histogram.h - a distribution of durations, log-linear, of bounded error
 *
 * Values are nanoseconds (any unit will do). Each power of two is cut into 128 equal cells, so
 * a value read back differs from the one put in by at most 1/256 (0.4 %) of it; values
 * below 128, the minimum, the maximum, the count and the sums are exact. Memory is constant.
 *
 * Pure: no system calls, no allocation. A histogram belongs to one thread at a time.
 */
#ifndef ECHOD_CLIENT_HISTOGRAM_H
#define ECHOD_CLIENT_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_CELL_BITS 7
#define HISTOGRAM_CELLS ((64 - HISTOGRAM_CELL_BITS + 1) << HISTOGRAM_CELL_BITS)

struct histogram {
	uint64_t count;
	uint64_t min; /* UINT64_MAX while empty */
	uint64_t max;
	double sum;
	double squares; /* sum of the squares, for the deviation */
	uint64_t cells[HISTOGRAM_CELLS];
};

void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value);

/* Add to `histogram` all that is in `other`. */
void histogram_merge(struct histogram *histogram, const struct histogram *other);

/* The value that `share` (0 to 1) of all values do not exceed; 0 when empty. share 1 is the exact maximum. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

double histogram_mean(const struct histogram *histogram);

/* Standard deviation of the whole population, what ping calls mdev. */
double histogram_deviation(const struct histogram *histogram);

/* How many values lie in [low, high), to the precision of the cells: a cell belongs
 * where its lowest value does, so adjoining ranges never count a value twice or lose one. */
uint64_t histogram_between(const struct histogram *histogram, uint64_t low, uint64_t high);

#endif
