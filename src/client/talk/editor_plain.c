/* SPDX-License-Identifier: ISC */
/* editor_plain.c - see editor.h; line editing of the terminal, for a build without libedit */
#include <config.h>

#include "client/talk/editor.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/interrupt.h"

struct editor {
	char line[65536]; /* longer than any line of a terminal (N_TTY_BUF_SIZE is 4096) */
};

struct editor *editor_open(void)
{
	return calloc(1, sizeof(struct editor));
}

enum editor_event editor_read(struct editor *editor, int watch, const char **line, size_t *length)
{
	struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
				 { .fd = watch, .events = POLLIN } };

	while (!interrupt_seen()) {
		ssize_t n;

		if (ppoll(fds, 2, NULL, interrupt_mask()) < 0)
			continue;
		if (fds[1].revents != 0)
			return EDITOR_WATCHED;
		n = read(STDIN_FILENO, editor->line, sizeof editor->line);
		if (n <= 0)
			return EDITOR_END;
		*line = editor->line;
		*length = (size_t) n;
		return EDITOR_LINE;
	}
	return EDITOR_INTERRUPTED;
}

void editor_close(struct editor *editor)
{
	free(editor);
}
