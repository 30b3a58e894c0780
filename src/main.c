/* SPDX-License-Identifier: ISC */
/* main.c - read arguments and configuration, then run the supervisor; the only caller of exit() */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/escape.h"
#include "base/log.h"
#include "conf/conf.h"
#include "conf/options.h"
#include "daemon/daemonize.h"
#include "daemon/signals.h"
#include "daemon/fdstore.h"
#include "daemon/supervisor.h"
#include "models/model.h"

/* More descriptors than systemd ever passes (FileDescriptorStoreMax and sockets). */
#define PASSED_MAX 1024

/* Standard error was closed: errors go to syslog(3). */
static bool stderr_was_closed;

/* Log to a sink that the user can see: until the configuration is read it is not known which one is
 * configured. */
static enum log_sink early_sink(void)
{
	return log_stderr_is_journal() ? LOG_SINK_JOURNAL
	       : stderr_was_closed     ? LOG_SINK_SYSLOG
	                               : LOG_SINK_STDERR;
}

/* Descriptors that are opened later must not become standard streams. */
static void open_missing_standard_streams(void)
{
	stderr_was_closed = fcntl(STDERR_FILENO, F_GETFD) < 0;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) {
			log_open(early_sink(), LOG_INFO);
			log_event(LOG_ERR, EVENT_START_FAILED, "Cannot open /dev/null: %s", strerror(errno));
			_exit(EX_OSERR);
		}
}

static void print_errors(const struct diagnostics *errors)
{
	for (size_t i = 0; i < errors->count; i++)
		fprintf(stderr, "%s\n", errors->items[i].text);
}

static void print_version(void)
{
	printf("echod %s\n", PACKAGE_VERSION);
	printf("Built with %s by %s.\n", ECHOD_FEATURES, ECHOD_COMPILER);
	printf("Configuration file: %s/echod.conf\n", SYSCONFDIR);
}

/* Report errors that occur before the configured log is open: to the journal, with message id and priority,
 * where standard error is connected to it; to syslog(3) where it was closed; to standard error otherwise. */
static void log_errors(const struct diagnostics *errors, int priority, enum event event)
{
	enum log_sink sink = early_sink();

	if (sink == LOG_SINK_STDERR) {
		print_errors(errors);
		return;
	}
	log_open(sink, LOG_INFO);
	for (size_t i = 0; i < errors->count; i++)
		log_event(priority, event, "%s", errors->items[i].text);
}

/* Parse the command line. Errors go where log_errors() sends them. */
static int parse(struct options *options, int argc, char *argv[])
{
	char *text = NULL;
	size_t size = 0;
	FILE *err = early_sink() != LOG_SINK_STDERR ? open_memstream(&text, &size) : NULL;
	int r = options_parse(options, argc, argv, model_names, err ? err : stderr);

	if (err && fclose(err) == 0 && size > 0) {
		log_open(early_sink(), LOG_INFO);
		for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
			log_event(LOG_ERR, EVENT_START_FAILED, "%.*s", (int) (end - line), line);
	}
	free(text);
	return r;
}

/* Whether every error comes from an option of the command line. */
static bool only_option_errors(const struct diagnostics *errors)
{
	for (size_t i = 0; i < errors->count; i++)
		if (strncmp(errors->items[i].text, "command line", strlen("command line")) != 0)
			return false;
	return true;
}

/* Read and check the configuration. Returns 0, or the exit status after reporting the errors. */
static int read_conf(struct conf **conf, const struct options *options)
{
	struct diagnostics errors = { 0 };
	int r = conf_read(conf, options->path, &options->overrides, model_names, model_check, &errors),
	    status = 0;

	if (r < 0) {
		if (errors.count == 0)
			diag_add(&errors, "echod: cannot read %s: %s", options->path, strerror(-r));
		log_errors(&errors, LOG_ERR, EVENT_CONFIG_WRONG);
		status = only_option_errors(&errors) ? EX_USAGE : EX_CONFIG;
		if (r != -EINVAL)
			status = EX_NOINPUT;
	}
	diag_clear(&errors);
	return status;
}

static int run_daemon(struct conf *conf, struct options *options)
{
	static char path[PATH_MAX];
	struct diagnostics errors = { 0 };
	int passed[PASSED_MAX], r;
	struct fdstore store;

	/* absolute, because a reload reads the file again from another working directory */
	if (realpath(options->path, path))
		options->path = path;
	signals_reset();
	r = fdstore_collect(&store, &errors);
	/* other inherited descriptors are not used, and could push descriptors of echod out of an fd_set
	 * (select(2)) */
	daemonize_close_others(passed, fdstore_descriptors(&store, passed, PASSED_MAX));
	log_errors(&errors, r < 0 ? LOG_ERR : LOG_WARNING, r < 0 ? EVENT_START_FAILED : EVENT_STATE_DAMAGED);
	diag_clear(&errors);
	log_open(early_sink(), LOG_INFO);
	if (r == 0 && !options->foreground)
		r = daemonize();
	if (r < 0) {
		int status = r == -ENOTSOCK ? EX_UNAVAILABLE : EX_OSERR;

		diag_add(&errors, "echod: cannot start: %s", strerror(-r));
		log_errors(&errors, LOG_ERR, EVENT_START_FAILED);
		diag_clear(&errors);
		daemonize_report(status);
		conf_free(conf);
		return status;
	}
	return supervisor_run(conf, options, &store);
}

static int run(struct options *options)
{
	char path[4 * PATH_MAX];
	struct conf *conf = NULL;
	int status = read_conf(&conf, options);

	if (status != 0)
		return status;
	switch (options->action) {
	case OPTIONS_TEST:
		escape_controls(path, sizeof path, options->path, strlen(options->path));
		printf("%s: the configuration is valid\n", path);
		break;
	case OPTIONS_DUMP:
		conf_dump(conf, stdout);
		break;
	default:
		return run_daemon(conf, options);
	}
	conf_free(conf);
	return 0;
}

int main(int argc, char *argv[])
{
	struct options options;
	int status = 0;

	signals_block();
	open_missing_standard_streams();
	if (parse(&options, argc, argv) < 0)
		exit(EX_USAGE);
	if (options.action != OPTIONS_RUN)
		signals_unblock();
	switch (options.action) {
	case OPTIONS_HELP:
		options_help(stdout);
		break;
	case OPTIONS_VERSION:
		print_version();
		break;
	case OPTIONS_LIST_MODELS:
		model_list(stdout);
		break;
	default:
		status = run(&options);
	}
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
		struct diagnostics errors = { 0 };

		diag_add(&errors, "echod: cannot write the output: %s", strerror(errno));
		log_errors(&errors, LOG_ERR, EVENT_START_FAILED);
		diag_clear(&errors);
		status = EX_IOERR;
	}
	exit(status);
}
