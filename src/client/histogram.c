/* SPDX-License-Identifier: ISC */
/* histogram.c - see histogram.h */
#include <config.h>

#include "client/histogram.h"

#include <math.h>
#include <string.h>

#define CELLS_EACH (1u << HISTOGRAM_CELL_BITS)

/* Values below CELLS_EACH have a cell each. For others the highest bit selects the power of two, and the
 * HISTOGRAM_CELL_BITS after it the cell. */
static size_t cell_of(uint64_t value)
{
	unsigned shift;

	if (value < CELLS_EACH)
		return (size_t) value;
	shift = 63u - (unsigned) __builtin_clzll(value) - HISTOGRAM_CELL_BITS;
	return ((size_t) (shift + 1) << HISTOGRAM_CELL_BITS) + ((size_t) (value >> shift) & (CELLS_EACH - 1));
}

static uint64_t cell_first(size_t cell)
{
	size_t power = cell >> HISTOGRAM_CELL_BITS;

	if (power == 0)
		return cell;
	return (uint64_t) (CELLS_EACH + (cell & (CELLS_EACH - 1))) << (power - 1);
}

static uint64_t cell_width(size_t cell)
{
	size_t power = cell >> HISTOGRAM_CELL_BITS;

	return power == 0 ? 1 : (uint64_t) 1 << (power - 1);
}

void histogram_clear(struct histogram *histogram)
{
	memset(histogram, 0, sizeof *histogram);
	histogram->min = UINT64_MAX;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->count++;
	if (value < histogram->min)
		histogram->min = value;
	if (value > histogram->max)
		histogram->max = value;
	histogram->sum += (double) value;
	histogram->squares += (double) value * (double) value;
	histogram->cells[cell_of(value)]++;
}

void histogram_merge(struct histogram *histogram, const struct histogram *other)
{
	histogram->count += other->count;
	if (other->min < histogram->min)
		histogram->min = other->min;
	if (other->max > histogram->max)
		histogram->max = other->max;
	histogram->sum += other->sum;
	histogram->squares += other->squares;
	for (size_t i = 0; i < HISTOGRAM_CELLS; i++)
		histogram->cells[i] += other->cells[i];
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
	uint64_t rank, seen = 0;

	if (histogram->count == 0)
		return 0;
	rank = (uint64_t) ceil(share * (double) histogram->count);
	if (rank >= histogram->count)
		return histogram->max;
	if (rank == 0)
		return histogram->min;
	for (size_t i = 0; i < HISTOGRAM_CELLS; i++) {
		seen += histogram->cells[i];
		if (seen >= rank) {
			uint64_t middle = cell_first(i) + cell_width(i) / 2;

			/* Not outside the range of the values added. */
			if (middle < histogram->min)
				return histogram->min;
			return middle > histogram->max ? histogram->max : middle;
		}
	}
	return histogram->max;
}

double histogram_mean(const struct histogram *histogram)
{
	return histogram->count == 0 ? 0 : histogram->sum / (double) histogram->count;
}

double histogram_deviation(const struct histogram *histogram)
{
	double mean = histogram_mean(histogram), variance;

	if (histogram->count == 0)
		return 0;
	variance = histogram->squares / (double) histogram->count - mean * mean;
	return variance > 0 ? sqrt(variance) : 0;
}

uint64_t histogram_between(const struct histogram *histogram, uint64_t low, uint64_t high)
{
	uint64_t count = 0;

	for (size_t i = 0; i < HISTOGRAM_CELLS; i++) {
		uint64_t first = cell_first(i);

		if (first < histogram->min)
			first = histogram->min;
		if (first >= high)
			break;
		if (first >= low)
			count += histogram->cells[i];
	}
	return count;
}
