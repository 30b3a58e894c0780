/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/names.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* No name of a key, model or option comes near this length; what is longer is no slip of the fingers. */
#define LONGEST 63

static bool same(char a, char b)
{
	return tolower((unsigned char) a) == tolower((unsigned char) b);
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Optimal string alignment distance of two strings of at most LONGEST bytes. Three rows of the
 * table are enough, since a swap of neighbours looks back two. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][LONGEST + 1], width = strlen(b);

	for (size_t j = 0; j <= width; j++)
		rows[0][j] = j;
	for (size_t i = 1; a[i - 1] != '\0'; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= width; j++) {
			row[j] = smaller(above[j], row[j - 1]) + 1;
			row[j] = smaller(row[j], above[j - 1] + !same(a[i - 1], b[j - 1]));
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
				row[j] = smaller(row[j], two_above[j - 2] + 1);
		}
	}
	return rows[strlen(a) % 3][width];
}

const char *names_nearest(const char *given, const char *const known[])
{
	const char *nearest = NULL;
	size_t length = strnlen(given, LONGEST + 1), best;

	if (length == 0 || length > LONGEST)
		return NULL;
	best = 2 + length / 4; /* one slip in a short name, one more for each four letters */
	for (; *known; known++) {
		size_t d;

		if (strlen(*known) > LONGEST)
			continue;
		d = distance(given, *known);
		/* A name of which no letter is left is not what was meant. */
		if (d < best && d < length) {
			best = d;
			nearest = *known;
		}
	}
	return nearest;
}

char *names_join(char *text, size_t size, const char *const known[])
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
