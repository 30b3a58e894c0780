/* SPDX-License-Identifier: ISC */
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

#include "base/plural.h"
#include "client/json.h"
#include "client/options.h"
#include "client/output.h"
#include "client/talk/editor.h"
#include "client/talk/exchange.h"
#include "client/talk/filter.h"

static enum outcome summary_print(const struct exchange *exchange)
{
	printf("%llu byte%s sent, %llu came back and matched\n", (unsigned long long) exchange->done.sent,
	       plural(exchange->done.sent), (unsigned long long) exchange->done.matched);
	return exchange->done.sent == exchange->done.matched ? OUTCOME_OK : OUTCOME_DIFFERS;
}

/* The socket became readable while no answer was outstanding. Returns OUTCOME_OK to continue. */
static enum outcome unexpected_data(const struct exchange *exchange)
{
	char bytes[4096];
	ssize_t n = recv(exchange->net, bytes, sizeof bytes, MSG_DONTWAIT);

	/* Over UDP: a duplicate answer, or an error that the next exchange reports. */
	if ((n < 0 && errno == EAGAIN) || exchange->options->udp)
		return OUTCOME_OK;
	fputc('\n', stderr);
	if (n > 0)
		return client_error(OUTCOME_DIFFERS, "%s sent %zd bytes that it was not sent",
				    exchange->target->name, n);
	return exchange_error_closed(exchange->target, n < 0 ? errno : 0, "");
}

/* Exchange a line, in several datagrams if it is longer than one. */
static enum outcome line_exchange(struct exchange *exchange, const char *line, size_t length)
{
	size_t max = exchange->options->udp ? (size_t) exchange->options->size : length;
	const char *start = line;

	while (length > 0) {
		size_t part = length < max ? length : max;
		enum outcome outcome = exchange_piece(exchange, (const uint8_t *) line, part);

		if (outcome != OUTCOME_OK)
			return outcome;
		if (line == start)
			output_line_begin(exchange->options->timestamps);
		fwrite(exchange->back, 1, part, stdout);
		line += part;
		length -= part;
	}
	fflush(stdout);
	return OUTCOME_OK;
}

static enum outcome conversation(struct exchange *exchange, struct editor *editor)
{
	enum outcome outcome = OUTCOME_OK;

	while (outcome == OUTCOME_OK) {
		const char *line;
		size_t length;

		switch (editor_read(editor, exchange->net, &line, &length)) {
		case EDITOR_LINE:
			outcome = line_exchange(exchange, line, length);
			break;
		case EDITOR_WATCHED:
			outcome = unexpected_data(exchange);
			break;
		case EDITOR_END:
		case EDITOR_INTERRUPTED:
			putchar('\n');
			return summary_print(exchange);
		}
	}
	return outcome;
}

static enum outcome talk_on_terminal(const struct client_options *options, const struct target *target,
				     int net, const struct addr *to, struct transfer *done)
{
	struct exchange exchange;
	struct editor *editor;
	char text[ADDR_TEXT_MAX];
	enum outcome outcome;

	setlocale(LC_CTYPE, "");
	/* In the "C" locale the editor would discard all characters that are not ASCII. */
	if (strcmp(nl_langinfo(CODESET), "ANSI_X3.4-1968") == 0)
		setlocale(LC_CTYPE, "C.UTF-8");
	editor = editor_open();
	if (!editor)
		return client_error(OUTCOME_USAGE, "the terminal cannot be used for line editing");
	if (!options->quiet) {
		printf("%s to %s; what you type comes back. Ctrl-D ends it.\n",
		       options->udp ? "UDP" : "Connected", target_text(addr_print(to, text)));
		fflush(stdout);
	}
	exchange_init(&exchange, options, target, net);
	outcome = conversation(&exchange, editor);
	editor_close(editor);
	*done = exchange.done;
	exchange_clear(&exchange);
	return outcome;
}

/* On standard error, because standard output has the copy. */
static void summary_json(const struct client_options *options, const struct target *target,
			 const struct addr *to, const struct transfer *done)
{
	char text[ADDR_TEXT_MAX];
	struct json json;

	json_open(&json, stderr, options->json_stream ? JSON_LINE : JSON_INDENTED);
	if (options->json_stream)
		json_text(&json, "type", "summary");
	json_text(&json, "target", target->name);
	json_text(&json, "address", addr_print(to, text));
	json_text(&json, "transport", options->udp ? "udp" : to->sa.sa_family == AF_UNIX ? "unix" : "tcp");
	json_count(&json, "bytes_sent", done->sent);
	json_count(&json, "bytes_matched", done->matched);
	json_count(&json, "retransmits", done->retransmits);
	json_count(&json, "lost", done->lost);
	json_text(&json, "error", client_error_first());
	json_close(&json);
}

enum outcome talk(const struct client_options *options, const struct target *target)
{
	char why[TARGET_WHY_MAX];
	struct target_choice to;
	bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	struct transfer done = { 0 };
	enum outcome outcome;
	int net;

	if (options->timestamps && !terminal)
		return client_error(
			OUTCOME_USAGE,
			"-D/--timestamps: a copy on standard output has no lines to put a time before");
	net = target_connect(target, &options->sockopts, &to, why);
	if (net < 0)
		return client_error(OUTCOME_UNREACHABLE, "%s", why);
	if (terminal)
		outcome = talk_on_terminal(options, target, net, &to.addr, &done);
	else
		outcome = (options->udp ? filter_datagram : filter_stream)(options, target, net, &done);
	close(net);
	if (options->json)
		summary_json(options, target, &to.addr, &done);
	return outcome;
}
