/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/quote.h"

#include <stdio.h>
#include <string.h>

char *quote(char out[static QUOTE_MAX], const char *text, size_t length)
{
	const size_t room = QUOTE_MAX - sizeof("...\"");
	size_t used = 0;

	out[used++] = '"';
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char) text[i];
		char piece[8];
		int n;

		if (c == '"' || c == '\\')
			n = snprintf(piece, sizeof(piece), "\\%c", c);
		else if (c >= ' ' && c < 0x7f)
			n = snprintf(piece, sizeof(piece), "%c", c);
		else
			n = snprintf(piece, sizeof(piece), "\\x%02X", c);
		if (used + (size_t) n > room) {
			memcpy(out + used, "...", 3);
			used += 3;
			break;
		}
		memcpy(out + used, piece, (size_t) n);
		used += (size_t) n;
	}
	out[used++] = '"';
	out[used] = '\0';
	return out;
}

char *quote_string(char out[static QUOTE_MAX], const char *text)
{
	return quote(out, text, strlen(text));
}
