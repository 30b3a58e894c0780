/* SPDX-License-Identifier: ISC */
/* numbers.c - see numbers.h */
#include <config.h>

#include "client/numbers.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/decimal.h"

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	uint64_t given;
	int r = decimal_prefix(&text, &given);

	if (*text != '\0')
		return -EINVAL;
	if (r < 0)
		return r;
	if (given < min || given > max)
		return -ERANGE;
	*value = given;
	return 0;
}

int number_parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	static const char units[] = "KMG";
	uint64_t given;
	unsigned shift = 0;
	int r = decimal_prefix(&text, &given);

	if (r < 0)
		return r;
	if (*text != '\0') {
		const char *unit = strchr(units, toupper((unsigned char) *text));

		if (!unit || text[1] != '\0')
			return -EINVAL;
		shift = 10u * (unsigned) (unit - units + 1);
	}
	if (given > (max >> shift) || given << shift < min)
		return -ERANGE;
	*value = given << shift;
	return 0;
}

int number_parse_time(const char *text, double min, double max, uint64_t *nsec)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = { { "", 1 }, { "s", 1 }, { "ms", 1e-3 }, { "us", 1e-6 }, { "m", 60 }, { "h", 3600 } };
	const char *rest = text;
	char plain[32];
	double value;
	size_t length;

	length = strspn(text, "0123456789.");
	rest = text + length;
	if (length == 0 || length >= sizeof plain || strspn(text, ".") == length
	    || memchr(text, '.', length) != memrchr(text, '.', length))
		return -EINVAL;
	memcpy(plain, text, length);
	plain[length] = '\0';
	value = strtod(plain, NULL);
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(rest, units[i].name) != 0)
			continue;
		value *= units[i].seconds;
		if (value < min || value > max)
			return -ERANGE;
		*nsec = (uint64_t) (value * 1e9 + 0.5);
		return 0;
	}
	return -EINVAL;
}

static int parse_dscp(const char *text, int *dscp)
{
	uint64_t value;
	int r;

	if (isdigit((unsigned char) text[0])) {
		r = number_parse(text, 0, 63, &value);
		if (r == 0)
			*dscp = (int) value;
		return r;
	}
	if (strcasecmp(text, "EF") == 0)
		*dscp = 46;
	else if (strcasecmp(text, "VA") == 0)
		*dscp = 44;
	else if (strcasecmp(text, "LE") == 0)
		*dscp = 1;
	else if (strncasecmp(text, "CS", 2) == 0 && text[2] >= '0' && text[2] <= '7' && text[3] == '\0')
		*dscp = (text[2] - '0') * 8;
	else if (strncasecmp(text, "AF", 2) == 0 && text[2] >= '1' && text[2] <= '4' && text[3] >= '1'
		 && text[3] <= '3' && text[4] == '\0')
		*dscp = (text[2] - '0') * 8 + (text[3] - '0') * 2;
	else
		return -EINVAL;
	return 0;
}

int number_parse_tos(const char *text, int *tos)
{
	int dscp, r;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		size_t length = strspn(text + 2, "0123456789abcdefABCDEF");

		if (length == 0 || text[2 + length] != '\0')
			return -EINVAL;
		if (length > 2)
			return -ERANGE;
		*tos = (int) strtol(text + 2, NULL, 16);
		return 0;
	}
	r = parse_dscp(text, &dscp);
	if (r == 0)
		*tos = dscp << 2;
	return r;
}

char *number_group(char text[static NUMBER_TEXT_MAX], uint64_t value)
{
	char plain[NUMBER_TEXT_MAX];
	int length = snprintf(plain, sizeof plain, "%llu", (unsigned long long) value);
	char *out = text;

	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			*out++ = ',';
		*out++ = plain[i];
	}
	*out = '\0';
	return text;
}

/* Three significant digits. */
static void three_digits(char text[static NUMBER_TEXT_MAX], double value, const char *unit)
{
	snprintf(text, NUMBER_TEXT_MAX, "%.*f %s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, unit);
}

char *number_duration(char text[static NUMBER_TEXT_MAX], double nsec)
{
	if (nsec < 1e3)
		snprintf(text, NUMBER_TEXT_MAX, "%.0f ns", nsec);
	else if (nsec < 999.5e3)
		three_digits(text, nsec / 1e3, "us");
	else if (nsec < 999.5e6)
		three_digits(text, nsec / 1e6, "ms");
	else
		three_digits(text, nsec / 1e9, "s");
	return text;
}

char *number_bytes(char text[static NUMBER_TEXT_MAX], double bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	size_t unit = 0;

	while (bytes >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, NUMBER_TEXT_MAX, "%.*f %s", unit == 0 || bytes >= 99.95 ? 0 : 1, bytes, units[unit]);
	return text;
}
