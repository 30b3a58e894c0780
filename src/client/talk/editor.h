/* editor.h - lines typed on the terminal
 *
 * editor.c: with editing and history, by libedit; editor_plain.c: as the terminal gives them. Main thread.
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

/* Returns NULL where it cannot be had. */
struct editor *editor_open(void);

/* Wait for a line, and for `watch` meanwhile. `*line` of `*length` bytes, its newline included, is
 * valid until the next call. */
enum editor_event editor_read(struct editor *editor, int watch, const char **line, size_t *length);

void editor_close(struct editor *editor);

#endif
