/* SPDX-License-Identifier: ISC */
/* histogram.h - distribution of durations with a bounded relative error
 *
 * A log-linear histogram, as HdrHistogram: each power of two is divided into 128 equal cells, so that a
 * value that is read differs from the one that was added by at most 1/256 (0.4 %). Values below 128, the
 * minimum, the maximum, the count and the sums are exact. The unit is the caller's (nanoseconds here).
 * Memory is constant.
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

/* Add all values of `other` to `histogram`. */
void histogram_merge(struct histogram *histogram, const struct histogram *other);

/* The value that a `share` (0 to 1) of all values do not exceed; 0 if empty. A share of 1 gives the exact
 * maximum. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

double histogram_mean(const struct histogram *histogram);

/* Standard deviation of the whole population; ping(8) calls it mdev. */
double histogram_deviation(const struct histogram *histogram);

/* The number of values in [low, high). A cell is counted where the lowest value is that it may hold (not less
 * than the minimum), so that adjacent ranges neither count a value twice nor omit it. */
uint64_t histogram_between(const struct histogram *histogram, uint64_t low, uint64_t high);

#endif
