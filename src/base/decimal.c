/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/decimal.h"

#include <errno.h>
#include <stdbool.h>

int decimal_prefix(const char **text, uint64_t *value)
{
	const char *start = *text;
	int r = 0;

	*value = 0;
	for (; **text >= '0' && **text <= '9'; ++*text) {
		unsigned digit = (unsigned) (**text - '0');

		if (*value > (UINT64_MAX - digit) / 10)
			r = -ERANGE;
		*value = r < 0 ? UINT64_MAX : *value * 10 + digit;
	}
	return *text == start ? -EINVAL : r;
}

int decimal_parse(const char *text, uint64_t max, uint64_t *value)
{
	bool leading_zero = text[0] == '0' && text[1] != '\0';
	int r = decimal_prefix(&text, value);

	if (r == -EINVAL || *text != '\0' || leading_zero)
		return -EINVAL;
	return r < 0 || *value > max ? -ERANGE : 0;
}
