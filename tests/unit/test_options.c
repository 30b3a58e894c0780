/* SPDX-License-Identifier: ISC */
/* test_options.c - echod's command line */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "conf/options.h"

static const char *const models[] = { "iterative", "process", "poll", "epoll", NULL };

enum { WORDS_MAX = 16 };

/* Parse the words of `line`, separated by blanks ("''" is an empty word). `message` receives the messages;
 * the caller frees it. The words are valid until the next call. */
static int parse(struct options *options, const char *line, char **message)
{
	static char words[512];
	char *argv[WORDS_MAX + 2] = { (char[]) { "echod" } }, *rest = NULL;
	size_t length;
	FILE *err = open_memstream(message, &length);
	int argc = 1, r;

	assert_non_null(err);
	assert_in_range(snprintf(words, sizeof(words), "%s", line), 0, sizeof(words) - 1);
	for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		assert_true(argc <= WORDS_MAX);
		argv[argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
	}
	r = options_parse(options, argc, argv, models, err);
	fclose(err);
	return r;
}

static struct options good(const char *line)
{
	struct options options;
	char *message;
	int r = parse(&options, line, &message);

	if (r != 0 || message[0] != '\0')
		fail_msg("\"%s\": %d, %s", line, r, message);
	free(message);
	return options;
}

/* The line is refused with a message that contains `said`. */
static void bad(const char *line, const char *said)
{
	struct options options;
	char *message;

	assert_int_equal(parse(&options, line, &message), -EINVAL);
	if (strncmp(message, "echod: ", 7) != 0 || !strstr(message, said) || !strstr(message, "--help"))
		fail_msg("\"%s\" says \"%s\", not \"%s\"", line, message, said);
	free(message);
}

/* The C library prints no message of its own. */
static void errors_are_written_once(void **state)
{
	int saved = dup(STDERR_FILENO), file = memfd_create("stderr", MFD_CLOEXEC);

	(void) state;
	assert_true(saved >= 0 && file >= 0);
	assert_int_equal(dup2(file, STDERR_FILENO), STDERR_FILENO);
	bad("--prot", "--prot");
	bad("-p", "--port needs a value");
	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	assert_int_equal(lseek(file, 0, SEEK_CUR), 0);
	close(saved);
	close(file);
}

static void starts_from_the_defaults(void **state)
{
	struct options options = good("");

	(void) state;
	assert_int_equal(options.action, OPTIONS_RUN);
	assert_false(options.foreground);
	assert_string_equal(options.path, SYSCONFDIR "/echod.conf");
	assert_null(options.overrides.model);
	assert_null(options.overrides.log_level);
	assert_int_equal(options.overrides.workers, -1);
	assert_int_equal(options.overrides.port, -1);
}

static void check_all(const char *line)
{
	struct options options = good(line);

	assert_true(options.foreground);
	assert_string_equal(options.path, "/x");
	assert_string_equal(options.overrides.model, "poll");
	assert_int_equal(options.overrides.workers, 3);
	assert_int_equal(options.overrides.port, 7007);
	assert_string_equal(options.overrides.log_level, "debug");
}

static void reads_every_option(void **state)
{
	(void) state;
	check_all("-n -c /x -m poll -w 3 -p 7007 -l debug");
	check_all("-nc/x -mpoll -w3 -p7007 -ldebug");
	check_all("--foreground --config /x --model poll --workers 3 --port 7007 --log-level debug");
	check_all("--foreground --config=/x --model=poll --workers=3 --port=7007 --log-level=debug --");
	/* GNU style: the last of several wins, and an option may be shortened while it stays unique. */
	check_all("-p 1 -n -c /y -c /x --mod poll --work 3 --port 7007 --log debug");
	assert_int_equal(good("-w 0").overrides.workers, 0);
	assert_int_equal(good("-w 100000").overrides.workers, 100000);
	assert_int_equal(good("-p 65535").overrides.port, 65535);
}

static void reads_actions(void **state)
{
	(void) state;
	assert_int_equal(good("-t").action, OPTIONS_TEST);
	assert_int_equal(good("--test").action, OPTIONS_TEST);
	assert_int_equal(good("-t -t -p 9").action, OPTIONS_TEST);
	assert_int_equal(good("-T").action, OPTIONS_DUMP);
	assert_int_equal(good("--dump -c /x").action, OPTIONS_DUMP);
	assert_int_equal(good("--list-models").action, OPTIONS_LIST_MODELS);
	assert_int_equal(good("-V").action, OPTIONS_VERSION);
	assert_int_equal(good("--version").action, OPTIONS_VERSION);
	assert_int_equal(good("-h").action, OPTIONS_HELP);
	assert_int_equal(good("--help").action, OPTIONS_HELP);
	assert_int_equal(good("-t --help --nonsense").action, OPTIONS_HELP);
	bad("-t -T", "only one of --test, --dump and --list-models");
	bad("-T -t", "only one of --test, --dump and --list-models");
	bad("-tT", "only one of --test, --dump and --list-models");
	bad("--list-models -t", "only one of --test, --dump and --list-models");
}

static void checks_values(void **state)
{
	static const char *const not_numbers[] = { "''", "x",  "0x10", "010", "00",
		                                   "-1", "+1", "1.5",  "1k",  "7x" };
	char line[64], said[128];

	(void) state;
	for (size_t i = 0; i < sizeof(not_numbers) / sizeof(not_numbers[0]); i++) {
		const char *shown = strcmp(not_numbers[i], "''") == 0 ? "" : not_numbers[i];

		snprintf(line, sizeof(line), "-p %s", not_numbers[i]);
		snprintf(said, sizeof(said),
		         "--port: \"%s\" is not a whole number from 1 to 65535, written in decimal", shown);
		bad(line, said);
		snprintf(line, sizeof(line), "--workers=%s", not_numbers[i]);
		if (shown[0] != '\0')
			bad(line, "is not a whole number from 0 to 100000, written in decimal");
	}
	bad("--workers=", "--workers: \"\" is not a whole number from 0 to 100000");
	bad("-p 0", "--port: \"0\" is not a whole number from 1 to 65535\n");
	bad("-p 65536", "--port: \"65536\" is not a whole number from 1 to 65535\n");
	bad("-p 4294967303", "from 1 to 65535\n");
	bad("-p 99999999999999999999999999", "from 1 to 65535\n");
	bad("-w 100001", "--workers: \"100001\" is not a whole number from 0 to 100000\n");
	bad("-m epol",
	    "--model: \"epol\" is not a model (did you mean \"epoll\"?); it must be iterative, process, "
	    "poll or epoll\n");
	bad("-m ''", "--model: \"\" is not a model; it must be iterative");
	bad("-m Epoll", "did you mean \"epoll\"?");
	bad("-l warn",
	    "--log-level: \"warn\" is not a log level; it must be err, warning, notice, info or debug\n");
	bad("-l inof", "(did you mean \"info\"?)");
	bad("-c ''", "--config: ");
}

static void refuses_unknown_options_and_arguments(void **state)
{
	(void) state;
	bad("-x", "unknown option -x\n");
	bad("-nx", "unknown option -x\n");
	bad("-\x1b", "unknown option -?\n");
	bad("-\x7f", "unknown option -?\n");
	bad("--prot 7", "\"--prot\"; did you mean \"--port\"?");
	bad("--prot=7", "\"--prot=7\"; did you mean \"--port\"?");
	bad("--verison", "did you mean \"--version\"?");
	bad("--nonsense", "option \"--nonsense\"\n");
	bad("-n --nonsense", "option \"--nonsense\"\n");
	bad("-c /x --nonsense", "option \"--nonsense\"\n");
	bad("--l debug", "unknown or ambiguous option \"--l\"");
	bad("--foreground=yes", "--foreground takes no value\n");
	bad("-p", "--port needs a value\n");
	bad("-n --model", "--model needs a value\n");
	bad("-nw", "--workers needs a value\n");
	bad("7007", "\"7007\" is one argument too many");
	bad("-n 7007", "\"7007\" is one argument too many");
	bad("-n -- -t", "\"-t\" is one argument too many");
	bad("''", "\"\" is one argument too many");
	bad("7007 -n --nonsense", "option \"--nonsense\"\n");
}

static void finds_the_first_of_each_list(void **state)
{
	char *argv[] = { (char[]) { "echod" }, (char[]) { "- " }, NULL }, *message;
	struct options options;
	size_t length;
	FILE *err = open_memstream(&message, &length);

	(void) state;
	bad("--foregroud", "did you mean \"--foreground\"?");
	assert_string_equal(good("-m iterative").overrides.model, "iterative");
	assert_string_equal(good("-l err").overrides.log_level, "err");
	/* an option whose character is a blank */
	assert_non_null(err);
	assert_int_equal(options_parse(&options, 2, argv, models, err), -EINVAL);
	fclose(err);
	assert_non_null(strstr(message, "unknown option -?\n"));
	free(message);
}

/* The rest of an earlier command line is not read, and getopt_long(3) prints no messages of its own. */
static void parses_each_command_line_alone(void **state)
{
	int saved = dup(2), ends[2];
	char text[16];

	(void) state;
	assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	assert_int_equal(dup2(ends[1], 2), 2);
	bad("-xn", "unknown option -x\n");
	dup2(saved, 2);
	close(saved);
	assert_int_equal(read(ends[0], text, sizeof text), -1);
	close(ends[0]);
	close(ends[1]);
	assert_false(good("").foreground);
	assert_false(good("-p 7").foreground);
}

static void help_fits_on_one_screen(void **state)
{
	static const char *const options[] = { "-c, --config",  "-n, --foreground", "-t, --test",
		                               "-T, --dump",    "-m, --model",      "-w, --workers",
		                               "-p, --port",    "-l, --log-level",  "--list-models",
		                               "-V, --version", "-h, --help" };
	char *text, *line;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	int lines = 0;

	(void) state;
	assert_non_null(out);
	options_help(out);
	fclose(out);
	assert_int_equal(strncmp(text, "Usage: echod ", 13), 0);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		assert_non_null(strstr(text, options[i]));
	assert_non_null(strstr(text, SYSCONFDIR "/echod.conf"));
	for (line = text; *line; line = strchr(line, '\n') + 1, lines++) {
		size_t width = strcspn(line, "\n");

		assert_int_equal(line[width], '\n');
		/* The length of the line with the path depends on the path. */
		if (!memmem(line, width, SYSCONFDIR, strlen(SYSCONFDIR)))
			assert_in_range(width, 0, 79);
	}
	assert_in_range(lines, 10, 24);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_are_written_once),
		cmocka_unit_test(starts_from_the_defaults),
		cmocka_unit_test(reads_every_option),
		cmocka_unit_test(reads_actions),
		cmocka_unit_test(checks_values),
		cmocka_unit_test(refuses_unknown_options_and_arguments),
		cmocka_unit_test(finds_the_first_of_each_list),
		cmocka_unit_test(parses_each_command_line_alone),
		cmocka_unit_test(help_fits_on_one_screen),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
