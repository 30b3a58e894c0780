/* SPDX-License-Identifier: ISC */
/* fuzz_options.c - the command line of echod
 *
 * The input is the arguments, separated by newlines. They are either refused, with a message of printable
 * characters, or accepted with every value in its range.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "conf/options.h"

#define ARGUMENTS_MAX 32

static const char *const models[] = { "iterative", "epoll", "io_uring", NULL };

static bool is_one_of(const char *name, const char *const names[])
{
	for (size_t i = 0; names[i]; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void claim_ranges(const struct options *options)
{
	const struct conf_overrides *overrides = &options->overrides;

	FUZZ_CLAIM(options->path && *options->path);
	FUZZ_CLAIM(!overrides->model || is_one_of(overrides->model, models));
	FUZZ_CLAIM(!overrides->log_level || is_one_of(overrides->log_level, conf_log_level_names));
	FUZZ_CLAIM(overrides->workers >= -1 && overrides->workers <= 100000);
	FUZZ_CLAIM(overrides->port == -1 || (overrides->port >= 1 && overrides->port <= 65535));
}

/* The message about a refused command line has no control characters and ends with a newline. */
static void claim_message(const char *text, size_t size)
{
	FUZZ_CLAIM(size > 1 && text[size - 1] == '\n');
	for (size_t i = 0; i < size; i++)
		FUZZ_CLAIM(text[i] == '\n' || (text[i] >= ' ' && text[i] != 0x7f));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text, *word, *message = NULL;
	char *arguments[ARGUMENTS_MAX + 2] = { (char[]) { "echod" } };
	size_t message_size = 0;
	FILE *err = open_memstream(&message, &message_size);
	struct options options;
	int count = 1, r;

	if (!text || !err)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	while (count <= ARGUMENTS_MAX && (word = strsep(&rest, "\n")) != NULL)
		arguments[count++] = word;
	r = options_parse(&options, count, arguments, models, err);
	if (fclose(err) != 0)
		abort();
	FUZZ_CLAIM(r == 0 || r == -EINVAL);
	if (r == 0)
		claim_ranges(&options);
	else
		claim_message(message, message_size);
	free(message);
	free(text);
	return 0;
}
