/* SPDX-License-Identifier: ISC */
/* fuzz.h - what the fuzz targets share
 *
 * A target defines LLVMFuzzerTestOneInput() and claims, with FUZZ_CLAIM(), what must hold for
 * every input. It is linked either with libFuzzer, which invents inputs, or with replay.c,
 * which takes them from files. Single thread.
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

/* What is left of an input that is read as a schedule. An exhausted one gives zeros. */
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
