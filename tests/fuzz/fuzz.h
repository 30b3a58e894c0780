/* SPDX-License-Identifier: ISC */
/* fuzz.h - common definitions of the fuzz targets
 *
 * A target defines LLVMFuzzerTestOneInput() and checks with FUZZ_CLAIM() the conditions that must be true
 * for every input. It is linked either with libFuzzer, which generates inputs, or with replay.c, which
 * reads them from files. Single thread.
 */
#ifndef ECHOD_TESTS_FUZZ_H
#define ECHOD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* End with a message where `condition` is false: libFuzzer keeps the input. */
#define FUZZ_CLAIM(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* The rest of an input that is read in pieces. After its end it gives zeros. */
struct fuzz_input {
	const uint8_t *data;
	size_t size;
};

static inline unsigned fuzz_take(struct fuzz_input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

/* Sizes up to 16 bits, small ones from most inputs. */
static inline size_t fuzz_take_size(struct fuzz_input *input)
{
	unsigned first = fuzz_take(input);

	return first < 0xc0 ? first : ((first & 0x3f) << 8 | fuzz_take(input)) * 4 + 1;
}

#endif
