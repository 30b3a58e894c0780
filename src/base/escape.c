/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/escape.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The length of the printable UTF-8 character at `text`; 0: a control character, or not valid (RFC 3629,
 * section 4). */
static size_t character_length(const unsigned char *text, size_t left)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t point = text[0];
	size_t length;

	if (point < 0x80)
		return point >= ' ' && point != 0x7f;
	length = point >= 0xf0 ? 4 : point >= 0xe0 ? 3 : 2;
	if (point < 0xc0 || point > 0xf4 || length > left)
		return 0;
	point &= 0x7fU >> length;
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (text[i] & 0x3fU);
	}
	if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000) ||
	    (point >= 0x80 && point < 0xa0))
		return 0;
	return length;
}

size_t escape_controls(char *out, size_t size, const char *text, size_t length)
{
	size_t used = 0;

	for (size_t at = 0; at < length;) {
		size_t taken = character_length((const unsigned char *) text + at, length - at);
		char escape[sizeof "\\xNN"];
		const char *piece = taken > 0 ? text + at : escape;
		size_t needs = taken > 0 ? taken : sizeof escape - 1;

		if (needs >= size - used)
			break;
		if (taken == 0)
			snprintf(escape, sizeof escape, "\\x%02X", (unsigned char) text[at]);
		memcpy(out + used, piece, needs);
		used += needs;
		at += taken > 0 ? taken : 1;
	}
	out[used] = '\0';
	return used;
}

const char *escape_find_control(const char *text)
{
	const unsigned char *at = (const unsigned char *) text;
	size_t left = strlen(text);

	while (left > 0) {
		size_t taken = character_length(at, left);

		/* C1 in UTF-8 begins with 0xc2, which is no character here */
		if (taken == 0 && (*at < 0xa0 || (*at == 0xc2 && left > 1 && at[1] >= 0x80 && at[1] < 0xa0)))
			return (const char *) at;
		taken += taken == 0;
		at += taken;
		left -= taken;
	}
	return NULL;
}
