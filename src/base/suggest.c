/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/suggest.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Maximum length of a name. Longer input is never a typing error. */
#define LENGTH_MAX 63

static bool same(char a, char b)
{
	return tolower((unsigned char) a) == tolower((unsigned char) b);
}

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Optimal string alignment distance of two strings of at most LENGTH_MAX bytes. Three rows of the table are
 * enough, since a swap of neighbours refers to the row two before. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][LENGTH_MAX + 1], width = strlen(b);

	for (size_t j = 0; j <= width; j++)
		rows[0][j] = j;
	for (size_t i = 1; a[i - 1] != '\0'; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= width; j++) {
			row[j] = min(above[j], row[j - 1]) + 1;
			row[j] = min(row[j], above[j - 1] + !same(a[i - 1], b[j - 1]));
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
				row[j] = min(row[j], two_above[j - 2] + 1);
		}
	}
	return rows[strlen(a) % 3][width];
}

const char *suggest_nearest(const char *given, const char *const known[])
{
	const char *nearest = NULL;
	size_t length = strnlen(given, LENGTH_MAX + 1), best;

	if (length == 0 || length > LENGTH_MAX)
		return NULL;
	best = 2 + length / 4; /* one error in a short name, one more for each four letters */
	for (; *known; known++) {
		size_t d;

		if (strlen(*known) > LENGTH_MAX)
			continue;
		d = distance(given, *known);
		/* at a distance of `length` every letter is replaced */
		if (d < best && d < length) {
			best = d;
			nearest = *known;
		}
	}
	return nearest;
}

char *suggest_join(char *text, size_t size, const char *const known[])
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; known[i] && used < size; i++) {
		const char *before = i == 0 ? "" : known[i + 1] ? ", " : " or ";
		int n = snprintf(text + used, size - used, "%s%s", before, known[i]);

		used += n > 0 ? (size_t) n : 0;
	}
	return text;
}
