/* talk.c - see talk.h */
#include <config.h>

#include "client/talk/talk.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/talk/editor.h"
#include "client/talk/exchange.h"
#include "client/talk/filter.h"
#include "client/options.h"

static int summary_print(const struct exchange *exchange)
{
	printf("%llu bytes sent, %llu came back and matched\n", (unsigned long long) exchange->sent,
	       (unsigned long long) exchange->matched);
	return exchange->sent == exchange->matched ? OUTCOME_OK : OUTCOME_DIFFERS;
}

/* Something came though nothing was asked. Returns -1 to go on, or the outcome. */
static int unexpected_data(const struct exchange *exchange)
{
	char bytes[4096];
	ssize_t n = recv(exchange->net, bytes, sizeof bytes, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return -1;
	/* Over UDP a late second answer, or news that nobody listens: the next exchange will tell. */
	if (exchange->options->udp)
		return -1;
	if (n > 0)
		fprintf(stderr, "\nechoc: %s sent %zd bytes that it was not sent\n", exchange->target->name,
			n);
	else if (n == 0)
		fprintf(stderr, "\nechoc: %s closed the connection\n", exchange->target->name);
	else
		fprintf(stderr, "\nechoc: the connection to %s broke: %s\n", exchange->target->name,
			strerror(errno));
	return OUTCOME_DIFFERS;
}

/* A line, in pieces where it is longer than a datagram. */
static int line_exchange(struct exchange *exchange, const char *line, size_t length)
{
	size_t most = exchange->options->udp ? (size_t) exchange->options->size : length;

	while (length > 0) {
		size_t part = length < most ? length : most;
		int r = exchange_piece(exchange, (const uint8_t *) line, part);

		if (r >= 0)
			return r;
		fwrite(exchange->back, 1, part, stdout);
		line += part;
		length -= part;
	}
	fflush(stdout);
	return -1;
}

static int conversation(struct exchange *exchange, struct editor *editor)
{
	for (;;) {
		const char *line;
		size_t length;
		int r = -1;

		switch (editor_read(editor, exchange->net, &line, &length)) {
		case EDITOR_LINE:
			r = line_exchange(exchange, line, length);
			break;
		case EDITOR_WATCHED:
			r = unexpected_data(exchange);
			break;
		case EDITOR_END:
		case EDITOR_INTERRUPTED:
			putchar('\n');
			return summary_print(exchange);
		}
		if (r >= 0)
			return r;
	}
}

static int talk_on_terminal(const struct client_options *options, const struct target *target, int net,
			    const struct addr *to)
{
	struct exchange exchange;
	struct editor *editor;
	char text[ADDR_TEXT_MAX];
	int outcome;

	setlocale(LC_CTYPE, "");
	/* Plain ASCII, as where no locale is set, would swallow all other letters. */
	if (strcmp(nl_langinfo(CODESET), "ANSI_X3.4-1968") == 0)
		setlocale(LC_CTYPE, "C.UTF-8");
	editor = editor_open();
	if (!editor) {
		fprintf(stderr, "echoc: the terminal cannot be used for line editing\n");
		return OUTCOME_USAGE;
	}
	if (!options->quiet) {
		printf("%s to %s; what you type comes back. Ctrl-D ends it.\n",
		       options->udp ? "UDP" : "Connected", addr_print(to, text));
		fflush(stdout);
	}
	exchange_init(&exchange, options, target, net);
	outcome = conversation(&exchange, editor);
	editor_close(editor);
	exchange_clear(&exchange);
	return outcome;
}

int talk(const struct client_options *options, const struct target *target)
{
	char why[TARGET_WHY_MAX];
	struct addr to;
	int net = target_connect(target, &options->sockopts, &to, why), outcome;

	if (net < 0) {
		fprintf(stderr, "echoc: %s\n", why);
		return OUTCOME_UNREACHED;
	}
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
		outcome = talk_on_terminal(options, target, net, &to);
	else
		outcome = options->udp ? filter_datagram(options, target, net)
				       : filter_stream(options, target, net);
	close(net);
	return outcome;
}
