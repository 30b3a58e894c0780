/* SPDX-License-Identifier: ISC */
/* fuzz_record.c - log records of workers, with any contents
 *
 * An accepted record has one line in each field and a valid priority, and is accepted again without a change.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

static void claim_one_line(const char *text)
{
	for (; *text; text++)
		FUZZ_CLAIM((unsigned char) *text >= ' ' && *text != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(size ? size : 1);
	struct log_record record, again;
	const char *message, *same;

	if (!copy)
		abort();
	if (size > 0)
		memcpy(copy, data, size);
	if (log_record_read(&record, copy, size, &message) == 0) {
		FUZZ_CLAIM(record.priority >= LOG_ERR && record.priority <= LOG_DEBUG);
		FUZZ_CLAIM(record.length > 0 && record.length <= sizeof record.text &&
		           record.text[record.length - 1] == '\0');
		FUZZ_CLAIM(message > record.text && message < record.text + record.length);
		for (size_t at = 0; at < record.length; at += strlen(record.text + at) + 1)
			claim_one_line(record.text + at);
		FUZZ_CLAIM(log_record_read(&again, record.text, record.length, &same) == 0);
		FUZZ_CLAIM(again.length == record.length &&
		           memcmp(again.text, record.text, record.length) == 0);
		FUZZ_CLAIM(strcmp(message, same) == 0);
	}
	free(copy);
	return 0;
}
