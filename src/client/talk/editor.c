/* SPDX-License-Identifier: ISC */
/* editor.c - see editor.h; with libedit (editline(3)) */
#include <config.h>

#include "client/talk/editor.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "client/interrupt.h"

#define HISTORY_MAX 1000 /* lines */

struct editor {
	EditLine *line;
	History *history;
	char *file; /* of the saved history; NULL: not saved */
	int watch;
	enum editor_event event; /* reason for which no character was read */
};

/* Set when the terminal must be set up again: the process was stopped and continued, or the window was
 * resized. */
static volatile sig_atomic_t terminal_changed;

static void on_signal(int signal)
{
	(void) signal;
	terminal_changed = 1;
}

/* The handlers of libedit (EL_SIGNAL) would send every signal to the whole process group. These signals are
 * blocked like the interrupts, except while ppoll(2) waits. */
static void signals_catch(void)
{
	static const struct sigaction action = { .sa_handler = on_signal };
	sigset_t both;

	sigemptyset(&both);
	sigaddset(&both, SIGCONT);
	sigaddset(&both, SIGWINCH);
	sigprocmask(SIG_BLOCK, &both, NULL);
	sigaction(SIGCONT, &action, NULL);
	sigaction(SIGWINCH, &action, NULL);
}

/* Set up the terminal again and redraw the line. */
static void terminal_restore(EditLine *line)
{
	terminal_changed = 0;
	el_set(line, EL_PREP_TERM, 0);
	el_set(line, EL_PREP_TERM, 1);
	el_resize(line);
	fputs("\r\033[J", stdout);
	el_set(line, EL_REFRESH);
}

static char *prompt(EditLine *line)
{
	static char text[] = "echo> ";

	(void) line;
	return text;
}

/* Wait for a typed byte. Returns 1; or 0 with editor->event set. */
static int byte_wait(struct editor *editor)
{
	struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
				 { .fd = editor->watch, .events = POLLIN } };

	while (!interrupt_seen()) {
		if (terminal_changed)
			terminal_restore(editor->line);
		if (ppoll(fds, 2, NULL, interrupt_mask()) < 0)
			continue;
		if (fds[1].revents != 0) {
			editor->event = EDITOR_WATCHED;
			return 0;
		}
		if (fds[0].revents != 0)
			return 1;
	}
	editor->event = EDITOR_INTERRUPTED;
	return 0;
}

/* Read one multibyte character; an EL_GETCFN function (editline(3)). */
static int character_read(EditLine *line, wchar_t *character)
{
	struct editor *editor;
	mbstate_t state = { 0 };
	char byte;

	el_get(line, EL_CLIENTDATA, &editor);
	for (;;) {
		size_t r;

		if (byte_wait(editor) == 0 || read(STDIN_FILENO, &byte, 1) != 1)
			return 0;
		/* A Ctrl-D typed while the terminal was in line mode is read as NUL. */
		if (byte == '\0')
			byte = '\004';
		r = mbrtowc(character, &byte, 1, &state);
		if (r == (size_t) -2)
			continue;
		/* Invalid in this locale: interpret the byte as Latin-1. */
		if (r == (size_t) -1)
			*character = (unsigned char) byte;
		return 1;
	}
}

/* The path in the state directory of the XDG base directory specification; NULL if there is no such
 * directory. */
static char *history_file(void)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *directory = NULL, *file = NULL;

	if (state && state[0] == '/')
		directory = strdup(state);
	else if (!home || asprintf(&directory, "%s/.local/state", home) < 0)
		directory = NULL;
	if (directory && (access(directory, W_OK) < 0 || asprintf(&file, "%s/echoc_history", directory) < 0))
		file = NULL;
	free(directory);
	return file;
}

struct editor *editor_open(void)
{
	struct editor *editor = calloc(1, sizeof *editor);
	HistEvent event;

	if (!editor)
		return NULL;
	editor->line = el_init("echoc", stdin, stdout, stderr);
	editor->history = history_init();
	if (!editor->line || !editor->history) {
		editor_close(editor);
		return NULL;
	}
	history(editor->history, &event, H_SETSIZE, HISTORY_MAX);
	history(editor->history, &event, H_SETUNIQUE, 1);
	el_set(editor->line, EL_CLIENTDATA, editor);
	el_set(editor->line, EL_PROMPT, prompt);
	el_set(editor->line, EL_EDITOR, "emacs");
	el_set(editor->line, EL_HIST, history, editor->history);
	el_set(editor->line, EL_GETCFN, character_read);
	el_source(editor->line, NULL);
	signals_catch();
	editor->file = history_file();
	if (editor->file)
		history(editor->history, &event, H_LOAD, editor->file);
	return editor;
}

enum editor_event editor_read(struct editor *editor, int watch, const char **line, size_t *length)
{
	HistEvent event;
	int count = 0;

	editor->watch = watch;
	editor->event = EDITOR_END;
	*line = el_gets(editor->line, &count);
	*length = count > 0 ? (size_t) count : 0;
	if (!*line || count <= 0 || editor->event != EDITOR_END)
		return editor->event;
	if (count > 1)
		history(editor->history, &event, H_ENTER, *line);
	return EDITOR_LINE;
}

void editor_close(struct editor *editor)
{
	HistEvent event;

	if (!editor)
		return;
	if (editor->file && editor->history)
		history(editor->history, &event, H_SAVE, editor->file);
	if (editor->history)
		history_end(editor->history);
	if (editor->line)
		el_end(editor->line);
	free(editor->file);
	free(editor);
}
