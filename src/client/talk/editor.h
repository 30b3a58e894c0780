/* SPDX-License-Identifier: ISC */
/* editor.h - read lines from the terminal
 *
 * editor.c uses libedit for editing and history; editor_plain.c the line editing of the terminal. Main
 * thread.
 */
#ifndef ECHOD_CLIENT_EDITOR_H
#define ECHOD_CLIENT_EDITOR_H

#include <stddef.h>

struct editor;

enum editor_event {
	EDITOR_LINE,
	EDITOR_END,         /* end of input */
	EDITOR_INTERRUPTED, /* Ctrl-C */
	EDITOR_WATCHED,     /* the watched descriptor has something to read */
};

/* Returns NULL if the terminal cannot be used. */
struct editor *editor_open(void);

/* Wait for a line, or until the descriptor `watch` is readable. `*line` has `*length` bytes with its
 * newline and is valid until the next call. */
enum editor_event editor_read(struct editor *editor, int watch, const char **line, size_t *length);

void editor_close(struct editor *editor);

#endif
