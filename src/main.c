/* main.c - from arguments and configuration to the supervisor; holds the only exit */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "conf/conf.h"
#include "conf/options.h"
#include "daemon/daemonize.h"
#include "daemon/store.h"
#include "daemon/supervisor.h"
#include "models/model.h"

/* More than systemd ever passes (FileDescriptorStoreMax and sockets). */
#define PASSED_MAX 1024

/* Whatever is opened must not become somebody's standard error. */
static void open_missing_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			_exit(EX_OSERR);
}

static void print_errors(const struct conf_errors *errors)
{
	for (size_t i = 0; i < errors->count; i++)
		fprintf(stderr, "%s\n", errors->lines[i]);
}

static void print_version(void)
{
	printf("echod %s\n", PACKAGE_VERSION);
	printf("Built with %s by %s.\n", ECHOD_FEATURES, ECHOD_COMPILER);
	printf("Configuration file: %s/echod.conf\n", SYSCONFDIR);
}

/* Mistakes that keep a service from starting: in the journal with what makes them findable
 * where somebody reads it there, on standard error otherwise. */
static void tell_errors(const struct conf_errors *errors, const struct options *options)
{
	if (options->action != OPTIONS_RUN || !log_stderr_is_journal()) {
		print_errors(errors);
		return;
	}
	log_open(LOG_SINK_JOURNAL, LOG_INFO);
	for (size_t i = 0; i < errors->count; i++)
		log_event(LOG_ERR, EVENT_CONFIG_WRONG, "%s", errors->lines[i]);
}

/* Whether nothing is wrong but an option of the command line, which makes the configuration impossible. */
static bool command_line_is_to_blame(const struct conf_errors *errors)
{
	for (size_t i = 0; i < errors->count; i++)
		if (strncmp(errors->lines[i], "command line", strlen("command line")) != 0)
			return false;
	return true;
}

/* Read and check; 0 or the exit status, with the mistakes printed. */
static int read_conf(struct conf **conf, const struct options *options)
{
	struct conf_errors errors = { 0 };
	int r = conf_read(conf, options->path, &options->overrides, model_names, model_check, &errors), status = 0;

	if (r < 0) {
		tell_errors(&errors, options);
		status = r != -EINVAL ? EX_NOINPUT : command_line_is_to_blame(&errors) ? EX_USAGE : EX_CONFIG;
	}
	conf_errors_clear(&errors);
	return status;
}

static int run_daemon(struct conf *conf, struct options *options)
{
	static char path[PATH_MAX];
	struct conf_errors errors = { 0 };
	int passed[PASSED_MAX], r;
	struct store store;

	/* a reload reads the same file, wherever the working directory is then */
	if (realpath(options->path, path))
		options->path = path;
	r = store_collect(&store, &errors);
	print_errors(&errors);
	conf_errors_clear(&errors);
	if (r == 0 && !options->foreground) {
		daemonize_close_others(passed, store_descriptors(&store, passed, PASSED_MAX));
		r = daemonize();
	}
	if (r < 0) {
		int status = r == -ENOTSOCK ? EX_UNAVAILABLE : EX_OSERR;

		fprintf(stderr, "echod: cannot start: %s\n", strerror(-r));
		daemonize_report(status);
		conf_free(conf);
		return status;
	}
	return supervisor_run(conf, options, &store);
}

static int run(struct options *options)
{
	struct conf *conf = NULL;
	int status = read_conf(&conf, options);

	if (status != 0)
		return status;
	switch (options->action) {
	case OPTIONS_TEST:
		printf("%s: the configuration is valid\n", options->path);
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

	open_missing_standard_streams();
	if (options_parse(&options, argc, argv, model_names, stderr) < 0)
		exit(EX_USAGE);
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
		fprintf(stderr, "echod: cannot write the output: %s\n", strerror(errno));
		status = EX_IOERR;
	}
	exit(status);
}
