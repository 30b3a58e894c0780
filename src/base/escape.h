/* SPDX-License-Identifier: ISC */
/* escape.h - escape control characters in log lines and notifications, where they would begin a line or
 * assignment */
#ifndef ECHOD_BASE_ESCAPE_H
#define ECHOD_BASE_ESCAPE_H

#include <stddef.h>

/* Copy `length` bytes of `text` to `out` (`size` bytes, not 0), NUL-terminated. Control characters (C0, DEL,
 * C1) and bytes that are not valid UTF-8 are written as \xNN. A result that does not fit is cut, but not
 * within a character or an escape. `out` and `text` must not overlap. Returns the length of the result. Pure.
 */
size_t escape_controls(char *out, size_t size, const char *text, size_t length);

/* The first control character of a string: C0, DEL, or C1 (as UTF-8, or as a byte outside of valid UTF-8, on
 * which terminals with other character sets act). NULL: it has none. Pure. */
const char *escape_find_control(const char *text);

#endif
