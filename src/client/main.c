/* SPDX-License-Identifier: ISC */
/* main.c - echoc: parse the command line, find the server, then talk, ping or load */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/json.h"
#include "client/load/load.h"
#include "client/options.h"
#include "client/output.h"
#include "client/ping/ping.h"
#include "client/talk/talk.h"

/* Open descriptors 0 to 2 where they are closed, because otherwise a socket would get one of these numbers
 * and be used as standard input or output. They are opened so that reading from 0, and writing to 1 and 2,
 * fails. */
static void descriptors_occupy(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		/* cppcheck-suppress leakReturnValNotUsed ; it stays open as `fd` */
		if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return; /* no /dev/null */
	}
}

/* Flush standard output. Returns `outcome`, or an error if output was lost. */
static enum outcome output_end(enum outcome outcome)
{
	const char *error = output_error();

	if (!error)
		return outcome;
	client_error(OUTCOME_DIFFERS, "standard output: %s", error);
	return outcome == OUTCOME_OK ? OUTCOME_DIFFERS : outcome;
}

/* With --json: print an object with the error if none has been printed. */
static void json_finish(const struct client_options *options)
{
	struct json json;

	if (!options->json || json_written())
		return;
	json_open(&json, options->activity == ACTIVITY_TALK ? stderr : stdout,
		  options->json_stream ? JSON_LINE : JSON_INDENTED);
	if (options->json_stream)
		json_text(&json, "type", "summary");
	json_text(&json, "target", options->host);
	json_text(&json, "error", client_error_first());
	json_close(&json);
}

static enum outcome run(const struct client_options *options)
{
	struct target target;
	char why[TARGET_WHY_MAX];
	enum outcome outcome = OUTCOME_OK;
	int r = target_find(&target, &options->sockopts, options->host, options->port, why);

	if (r < 0)
		return client_error(r == -EINVAL ? OUTCOME_USAGE : OUTCOME_UNREACHABLE, "%s", why);
	/* Not before the look-up: the resolver continues after a signal, and until now there is nothing to
	 * report. */
	interrupt_init();
	switch (options->activity) {
	case ACTIVITY_TALK:
		outcome = talk(options, &target);
		break;
	case ACTIVITY_PING:
		outcome = ping(options, &target);
		break;
	case ACTIVITY_LOAD:
		outcome = load(options, &target);
		break;
	}
	target_clear(&target);
	return outcome;
}

int main(int argc, char *argv[])
{
	struct client_options options;
	enum outcome outcome;

	descriptors_occupy();
	if (client_options_parse(&options, argc, argv, &outcome)) {
		/* While talking, standard output has the copy, and the object is printed on standard
		 * error. */
		if (options.json && options.activity == ACTIVITY_TALK)
			client_error_silence();
		outcome = run(&options);
	}
	if (outcome != OUTCOME_OK)
		json_finish(&options);
	return (int) output_end(outcome);
}
