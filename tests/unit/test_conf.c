/* SPDX-License-Identifier: ISC */
/* test_conf.c - echod.conf: values, errors and their messages, dump */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/syntax.h"
#include "failing.h"
#include "models/model.h"

static const struct conf_overrides no_overrides = CONF_OVERRIDES_NONE;

/* ---- helpers ---- */

/* All errors as one text, a line each; to be freed. Leaves `errors` empty. */
static char *errors_text(struct diagnostics *errors)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_non_null(out);
	for (size_t i = 0; i < errors->count; i++) {
		assert_null(strchr(errors->items[i].text, '\n'));
		fprintf(out, "%s\n", errors->items[i].text);
	}
	fclose(out);
	diag_clear(errors);
	assert_int_equal(errors->count, 0);
	return text;
}

static int read_length(struct conf **conf, const char *text, size_t length, char **told)
{
	struct diagnostics errors = { 0 };
	char *copy = malloc(length ? length : 1); /* a sanitizer detects reads beyond its end */
	int r;

	assert_non_null(copy);
	memcpy(copy, text, length);
	r = conf_read_text(conf, "F", copy, length, &no_overrides, model_names, NULL, &errors);
	free(copy);
	*told = errors_text(&errors);
	assert_int_equal(r == 0, *conf != NULL);
	assert_int_equal(r == 0, (*told)[0] == '\0');
	return r;
}

static struct conf *good(const char *text)
{
	struct conf *conf;
	char *told;

	if (read_length(&conf, text, strlen(text), &told) != 0)
		fail_msg("\"%s\" is refused: %s", text, told);
	free(told);
	return conf;
}

/* The text is refused with the `expected` lines and no others. A line that ends in "..." is the beginning of
 * a message. */
static void bad(const char *text, const char *expected)
{
	struct conf *conf;
	char *told, *line;

	assert_int_equal(read_length(&conf, text, strlen(text), &told), -EINVAL);
	line = told;
	for (const char *want = expected; *want; want += strcspn(want, "\n") + (strchr(want, '\n') != NULL)) {
		size_t length = strcspn(want, "\n"), got = strcspn(line, "\n");
		bool start = length >= 3 && memcmp(want + length - 3, "...", 3) == 0;

		length -= start ? 3 : 0;
		if (got < length || (!start && got != length) || memcmp(line, want, length) != 0)
			fail_msg("\"%s\" gives\n%sinstead of\n%s", text, told, expected);
		line += got + (line[got] == '\n');
	}
	if (*line)
		fail_msg("\"%s\" gives\n%sbut must only give\n%s", text, told, expected);
	free(told);
}

static char *dump(const struct conf *conf)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_non_null(out);
	conf_dump(conf, out);
	fclose(out);
	return text;
}

/* Both texts give the same configuration. */
static void same(const char *a, const char *b)
{
	struct conf *first = good(a), *second = good(b);
	char *first_text = dump(first), *second_text = dump(second);

	assert_string_equal(first_text, second_text);
	free(first_text);
	free(second_text);
	conf_free(first);
	conf_free(second);
}

/* ---- valid files ---- */

static void check_defaults(const struct conf *conf)
{
	struct addr any;
	const char *why;

	assert_string_equal(conf->model, "epoll");
	assert_int_equal(conf->workers, 0);
	assert_int_equal(conf->port, 7);
	assert_int_equal(conf->listen_count, 1);
	assert_true(conf->listen[0].wildcard);
	assert_int_equal(addr_parse(&any, "[::]:7", 1, &why), 0);
	assert_true(addr_equal(&conf->listen[0].addr, &any));
	assert_true(conf->tcp);
	assert_false(conf->udp);
	assert_int_equal(conf->backlog, 4096);
	assert_true(conf->freebind);
	assert_int_equal(conf->max_connections, 0);
	assert_int_equal(conf->max_per_source, 0);
	assert_int_equal(conf->idle_timeout, 600);
	assert_int_equal(conf->tcp_keepalive, 300);
	assert_int_equal(conf->drain_timeout, 10);
	assert_int_equal(conf->buffer_size, 65536);
	assert_int_equal(conf->allow.count, 0);
	assert_int_equal(conf->deny.count, 0);
	assert_string_equal(conf->user, "");
	assert_string_equal(conf->group, "");
	assert_string_equal(conf->pidfile, "/run/echod.pid");
	assert_int_equal(conf->log_target, CONF_LOG_AUTO);
	assert_int_equal(conf->log_level, LOG_INFO);
	assert_true(conf->log_connections);
	assert_int_equal(conf->stats_interval, 60);
	assert_true(conf->keep_connections);
	assert_false(conf->reflect_dscp);
	assert_int_equal(conf->udp_rate, 1000);
	assert_int_equal(conf->udp_trusted.count, 0);
	assert_string_equal(conf->metrics_file, "");
}

static void reads_an_empty_file(void **state)
{
	static const char *const empty[] = { "",          "\n",         " \t\r\n",
		                             "# comment", "// comment", "/* comment */",
		                             "\n\n#\n" };

	(void) state;
	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
		struct conf *conf = good(empty[i]);

		check_defaults(conf);
		for (int key = 0; key < CONF_KEYS; key++)
			assert_int_equal(conf->origin[key].source, CONF_FROM_DEFAULT);
		assert_string_equal(conf->path, "F");
		conf_free(conf);
	}
	conf_free(NULL);
}

/* Every key, each with a value that is not its default. */
static const char every_key[] =
	"model = \"io_uring\"\n"
	"workers = 8\n"
	"port = 7007\n"
	"listen = {\"127.0.0.1\", \"[::1]:9\", \"unix:/run/e.sock\"}\n"
	"freebind = false\n"
	"unix-mode = \"0606\"\n"
	"unix-group = \"root\"\n"
	"mptcp = true\n"
	"proxy-protocol = {\"192.0.2.0/24\"}\n"
	"protocols = {\"tcp\", \"udp\"}\n"
	"backlog = 65535\n"
	"max-connections = 10000000\n"
	"max-per-source = 5\n"
	"idle-timeout = 86400000\n"
	"tcp-keepalive = 32767\n"
	"drain-timeout = 86400\n"
	"buffer-size = 16777216\n"
	"socket-buffer = 1073741824\n"
	"allow = {\"192.0.2.0/24\", \"2001:db8::/32\"}\n"
	"deny = {\"192.0.2.7\"}\n"
	"user = \"root\"\n"
	"group = \"root\"\n"
	"pidfile = \"/tmp/a \\\"b\\\" \\\\ \\${HOME}\"\n"
	"log-target = \"syslog\"\n"
	"log-level = \"debug\"\n"
	"log-connections = false\n"
	"stats-interval = 0\n"
	"keep-connections = false\n"
	"reflect-dscp = true\n"
	"udp-rate = 1000000000\n"
	"udp-trusted = {\"::1\"}\n"
	"metrics-file = \"/var/lib/m\"\n";

static void reads_every_key(void **state)
{
	struct conf *conf = good(every_key);
	struct addr addr;
	const char *why;

	(void) state;
	assert_string_equal(conf->model, "io_uring");
	assert_int_equal(conf->workers, 8);
	assert_int_equal(conf->port, 7007);
	assert_int_equal(conf->listen_count, 3);
	assert_false(conf->listen[0].wildcard);
	assert_int_equal(addr_parse(&addr, "127.0.0.1:7007", 1, &why), 0);
	assert_true(addr_equal(&conf->listen[0].addr, &addr));
	assert_int_equal(addr_parse(&addr, "[::1]:9", 1, &why), 0);
	assert_true(addr_equal(&conf->listen[1].addr, &addr));
	assert_string_equal(conf->listen[2].addr.un.sun_path, "/run/e.sock");
	assert_true(conf->tcp);
	assert_true(conf->udp);
	assert_int_equal(conf->backlog, 65535);
	assert_false(conf->freebind);
	assert_int_equal(conf->unix_mode, 0606);
	assert_string_equal(conf->unix_group, "root");
	assert_true(conf->mptcp);
	assert_int_equal(conf->proxy_protocol.count, 1);

	assert_int_equal(conf->max_connections, 10000000);
	assert_int_equal(conf->max_per_source, 5);
	assert_int_equal(conf->idle_timeout, 86400000);
	assert_int_equal(conf->tcp_keepalive, 32767);
	assert_int_equal(conf->drain_timeout, 86400);
	assert_int_equal(conf->buffer_size, 16777216);
	assert_int_equal(conf->socket_buffer, 1073741824);
	assert_int_equal(addr_parse(&addr, "192.0.2.7", 7, &why), 0);
	assert_true(cidr_set_match(&conf->allow, &addr));
	assert_true(cidr_set_match(&conf->deny, &addr));
	assert_int_equal(addr_parse(&addr, "::1", 7, &why), 0);
	assert_false(cidr_set_match(&conf->allow, &addr));
	assert_true(cidr_set_match(&conf->udp_trusted, &addr));
	assert_string_equal(conf->user, "root");
	assert_string_equal(conf->group, "root");
	assert_string_equal(conf->pidfile, "/tmp/a \"b\" \\ ${HOME}");
	assert_int_equal(conf->log_target, CONF_LOG_SYSLOG);
	assert_int_equal(conf->log_level, LOG_DEBUG);
	assert_false(conf->log_connections);
	assert_int_equal(conf->stats_interval, 0);
	assert_false(conf->keep_connections);
	assert_true(conf->reflect_dscp);
	assert_int_equal(conf->udp_rate, 1000000000);
	assert_string_equal(conf->metrics_file, "/var/lib/m");
	for (unsigned key = 0; key < CONF_KEYS; key++) {
		assert_int_equal(conf->origin[key].source, CONF_FROM_FILE);
		assert_int_equal(conf->origin[key].line, key + 1);
	}
	conf_free(conf);
}

static void reads_libconfuse_syntax(void **state)
{
	(void) state;
	same("model=poll", "model = \"poll\"");
	same("model = 'poll'", "model = \"poll\"");
	same("port = \"9\"", "port = 9");
	same("port = 9 workers = 2", "port = 9\nworkers = 2");
	same("port\n=\n9\r\n", "port = 9");
	same("allow = \"::1\"", "allow = {\"::1\"}");
	same("allow = {::1, 10.0.0.0/8,}", "allow = {\"::1\", \"10.0.0.0/8\"}");
	same("log-connections = off keep-connections = NO",
	     "log-connections = false\nkeep-connections = false");
	same("pidfile = /run//x # end", "pidfile = \"/run//x\"");
	same("pidfile = '/\\a \\'x\\' \\\\ ${HOME}'", "pidfile = \"/\\\\a 'x' \\\\ \\${HOME}\"");
}

/* libconfuse itself refuses comments inside of lists, and counts one line too many for some comments. */
static void reads_comments_anywhere(void **state)
{
	struct conf *conf;

	(void) state;
	same("allow = { # one\n \"::1\", // two\n /* three\n */ \"::2\" /**/ }\nport /* of call */ = /***/ 9",
	     "allow = {\"::1\", \"::2\"}\nport = 9");
	same("pidfile = \"/a#b//c/*d*/e\"", "pidfile = '/a#b//c/*d*/e'");
	conf = good("/* 1\n2\n3 */ # \"\n/**/ port = 9\n");
	assert_int_equal(conf->origin[CONF_PORT].line, 4);
	conf_free(conf);
	bad("/* 1\n2 */ /* \n*/ /* */\nport = x", "F:4: port: \"x\" is not a whole number...");
}

static void reads_variables_that_are_set(void **state)
{
	(void) state;
	assert_int_equal(setenv("ECHOD_TEST_PORT", "7009", 1), 0);
	assert_int_equal(unsetenv("ECHOD_TEST_UNSET"), 0);
	same("port = ${ECHOD_TEST_PORT}", "port = 7009");
	same("port = \"${ECHOD_TEST_PORT}\"", "port = 7009");
	same("listen = {\"127.0.0.1:${ECHOD_TEST_PORT}\"}", "listen = {\"127.0.0.1:7009\"}");
	same("port = ${ECHOD_TEST_UNSET:-8}", "port = 8");
	same("pidfile = '/${ECHOD_TEST_UNSET}'", "pidfile = \"/\\${ECHOD_TEST_UNSET}\"");
	bad("user = ${ECHOD_TEST_UNSET}",
	    "F:1: user: \"${ECHOD_TEST_UNSET}\" names an environment variable that is not set...");
	bad("user = \"${ECHOD_TEST_UNSET}\"",
	    "F:1: user: \"${ECHOD_TEST_UNSET}\" names an environment variable that is not set...");
	bad("user = \"${}\"\nport = ${", "F:1: user: \"${}\" has \"${\" without a variable...\n"
	                                   "F:2: port: \"${\" has \"${\" without a variable...");
	assert_int_equal(unsetenv("ECHOD_TEST_PORT"), 0);
}

static void reads_listen_addresses(void **state)
{
	struct conf *conf = good("listen = {\"*\", \"*:9\", \"10.0.0.1:9007\"}\nport = 8");

	(void) state;
	assert_int_equal(conf->listen_count, 3);
	assert_true(conf->listen[0].wildcard);
	assert_int_equal(addr_port(&conf->listen[0].addr), 8);
	assert_true(conf->listen[1].wildcard);
	assert_int_equal(addr_port(&conf->listen[1].addr), 9);
	assert_false(conf->listen[2].wildcard);
	conf_free(conf);

	conf_free(good("listen = {\"0.0.0.0\", \"::\"}"));
	conf_free(good("listen = {\"::1\", \"0.0.0.0\", \"unix:/a\", \"unix:/b\"}"));
	bad("listen = {}", "F:1: listen: the list is empty...");
	bad("listen = {\"\"}", "F:1: listen: \"\": an address is written...");
	bad("listen = {\"*:\"}", "F:1: listen: \"*:\": a port is a number...");
	bad("listen = {\"*:0\"}", "F:1: listen: \"*:0\": a port is a number...");
	bad("listen = {\"*:123456\"}", "F:1: listen: \"*:123456\": ...");
	bad("listen = {\"**\"}", "F:1: listen: \"**\": an address is written...");
	bad("listen = {\"*\", \"*\"}",
	    "F:1: listen: \"*\": the same as \"*\", listed before; once is enough");
	bad("listen = {\"*\", \"*:7\"}",
	    "F:1: listen: \"*:7\": the same as \"*\", listed before; once is enough");
	bad("listen = {\"127.0.0.1\", \"::1\", \"127.0.0.1:7\"}",
	    "F:1: listen: \"127.0.0.1:7\": the same as \"127.0.0.1\", listed before; once is enough");
	bad("listen = {\"unix:/a\", \"unix:/a\"}", "F:1: listen: \"unix:/a\": the same as...");
	bad("listen = {\"*\", \"127.0.0.1\"}",
	    "F:1: listen: \"127.0.0.1\": included in \"*\" on the same port; list one of them");
	bad("listen = {\"::1\", \"*\"}", "F:1: listen: \"::1\": included in \"*\" on the same port...");
	bad("listen = {\"10.0.0.1\", \"0.0.0.0\"}", "F:1: listen: \"10.0.0.1\": included in \"0.0.0.0\"...");
	bad("listen = {\"::\", \"::1\"}", "F:1: listen: \"::1\": included in \"::\"...");
	/* The port is not known, so the addresses cannot be compared. */
	bad("port = x\nlisten = {\"127.0.0.1\", \"127.0.0.1:7\"}", "F:1: port: ...");
}

/* ---- errors that libconfuse 3.3 does not report, or not as such ---- */

static void refuses_unclosed_comments_and_sections(void **state)
{
	(void) state;
	bad("port = 9\n/* no end\nworkers = 2\n",
	    "F:2: \"/*\" begins a comment that never ends; close it with \"*/\"");
	bad("port = 9 /* no end\nport = 8", "F:1: \"/*\" begins a comment that never ends...");
	bad("listen = {\"*\" /* no end", "F:1: \"/*\" begins a comment that never ends...");
	bad("server {\nlisten = {\n/* no end",
	    "F:1: \"server\" is a section...\nF:3: \"/*\" begins a comment...");
	bad("port = /* no end", "F:1: \"/*\" begins a comment...");
	bad("port /* no end", "F:1: port: no \"=\" after it...\nF:1: \"/*\" begins a comment...");
	bad("/*/", "F:1: \"/*\" begins a comment...");
	bad("\nlisten {\n\"*\"\n", "F:2: listen: no \"=\" after it...");
	bad("\nserver {\nport = 9\n",
	    "F:2: \"server\" is a section...\nF:2: the section that begins here is never closed...");
	bad("server \"x\" {\nport = 0\n}\nworkers = x\n",
	    "F:1: \"server\" is a section...\nF:2: port: \"0\"...\nF:4: workers: \"x\"...");
	bad("a { b { port = 9 } }", "F:1: \"a\" is a section...\nF:1: \"b\" is a section...");
	bad("}", "F:1: \"}\" does not belong here...");
}

static void refuses_invalid_numbers(void **state)
{
	static const char *const wrong[] = { "\"\"",   "010",   "00",   "0x10", "-1",
		                             "\"+1\"", "1.5",   "1k",   "7;",   "' 7'",
		                             "\"7 \"", "seven", "true", "1e3",  "99999999999999999999" };
	char text[64], expected[128];

	(void) state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		size_t quoted = wrong[i][0] == '"' || wrong[i][0] == '\'';

		snprintf(text, sizeof(text), "\nworkers = %s\n", wrong[i]);
		snprintf(expected, sizeof(expected),
		         "F:2: workers: \"%.*s\" is not a whole number from 0 to 100000...",
		         (int) (strlen(wrong[i]) - 2 * quoted), wrong[i] + quoted);
		bad(text, expected);
	}
	bad("workers = 010",
	    "F:1: workers: \"010\" is not a whole number from 0 to 100000, written in decimal digits "
	    "without leading zeros");
}

static void checks_ranges(void **state)
{
	static const struct {
		const char *key;
		int64_t min, max;
	} ranges[] = {
		{ "workers", 0, 100000 },          { "port", 1, 65535 },
		{ "backlog", 1, 65535 },           { "max-connections", 0, 10000000 },
		{ "max-per-source", 0, 10000000 }, { "idle-timeout", 0, 86400000 },
		{ "tcp-keepalive", 0, 32767 },     { "drain-timeout", 0, 86400 },
		{ "buffer-size", 512, 16777216 },  { "stats-interval", 0, 86400 },
		{ "udp-rate", 0, 1000000000 },
	};

	(void) state;
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		const int64_t right[] = { ranges[i].min, ranges[i].max };
		const int64_t wrong[] = { ranges[i].min - 1, ranges[i].max + 1,
			                  ranges[i].min + (INT64_C(1) << 32), INT64_C(1) << 62 };
		char text[64], line[64], expected[128];

		for (size_t j = 0; j < sizeof(right) / sizeof(right[0]); j++) {
			struct conf *conf;
			char *told;

			snprintf(line, sizeof(line), "%s = %" PRId64 "\n", ranges[i].key, right[j]);
			conf = good(line);
			told = dump(conf);
			assert_non_null(strstr(told, line));
			free(told);
			conf_free(conf);
		}
		for (size_t j = 0; j < sizeof(wrong) / sizeof(wrong[0]); j++) {
			snprintf(text, sizeof(text), "%s = %" PRId64 "\n", ranges[i].key, wrong[j]);
			snprintf(expected, sizeof(expected),
			         "F:1: %s: \"%" PRId64 "\" is not a whole number from %" PRId64 " to %" PRId64
			         "...",
			         ranges[i].key, wrong[j], ranges[i].min, ranges[i].max);
			bad(text, expected);
		}
	}
}

static void refuses_a_key_given_twice(void **state)
{
	(void) state;
	bad("port = 7\nworkers = 1\nport = 8\n\nport = 9",
	    "F:3: port: given twice, first in line 1; keep one of them\n"
	    "F:5: port: given twice, first in line 1; keep one of them");
	bad("allow = {}\nallow = {}", "F:2: allow: given twice, first in line 1; keep one of them");
	bad("allow = {\"::1\"}\nallow += {\"::2\"}",
	    "F:2: allow: given twice, first in line 1; keep one of them");
	bad("allow += {\"::2\"}", "F:1: allow: \"+=\" is not offered; write the whole value after \"=\"");
	bad("port += 1", "F:1: port: \"+=\" is not offered; write the whole value after \"=\"");
}

static void ignores_an_old_errno(void **state)
{
	struct conf *conf;

	(void) state;
	errno = ERANGE;
	conf = good("port = 9");
	assert_int_equal(conf->port, 9);
	conf_free(conf);
}

static void refuses_include(void **state)
{
	int before = count_descriptors();

	(void) state;
	/* Repeated, because libconfuse leaks a descriptor for each include(), and fails after ten. */
	for (int i = 0; i < 20; i++) {
		bad("include(\"/dev/null\")\nport = 0", "F:1: \"include\" is a call, and echod.conf has "
		                                        "none; put the settings of all files into this one\n"
		                                        "F:2: port: \"0\"...");
	}
	assert_int_equal(count_descriptors(), before);
	bad("include(", "F:1: \"include\" is a call...");
	bad("include(\"/dev/null\"\nport = 0", "F:1: \"include\" is a call...\nF:2: port: \"0\"...");
	bad("include = \"/dev/null\"", "F:1: unknown key \"include\"...");
	bad("exec(ls)", "F:1: \"exec\" is a call...");
}

/* libconfuse drops these characters without a message, so that the value would differ from the text. */
static void refuses_characters_that_would_be_dropped(void **state)
{
	(void) state;
	bad("listen = *", "F:1: listen: \"*\" has a character that needs quotes...");
	bad("listen = {*, \"::1\"}", "F:1: listen: \"*\" has a character that needs quotes...");
	bad("listen = {*:9}", "F:1: listen: \"*:9\" has a character that needs quotes...");
	bad("pidfile = /run/a+b", "F:1: pidfile: \"/run/a+b\" has a character that needs quotes...");
	bad("pidfile = /run/a#b c = d\nport = 0",
	    "F:1: pidfile: \"/run/a#b c = d\" has a character...\nF:2: port: ...");
	bad("pidfile = /run/*", "F:1: pidfile: \"/run/*\" has a character that needs quotes...");
	bad("pidfile = \"/run/a\\0b\"",
	    "F:1: pidfile: \"/run/a\\\\0b\" has a character given by its number...");
	bad("pidfile = \"/run/a\\x00b\"", "F:1: pidfile: ...");
	bad("port = 7 8", "F:1: \"8\" does not belong here...");
	bad("*", "F:1: \"*\" has a character that needs quotes...");
	bad("+", "F:1: \"+\" has a character that needs quotes...");
}

/* ---- other errors ---- */

static void refuses_unknown_keys(void **state)
{
	(void) state;
	bad("\nprot = 9\n", "F:2: unknown key \"prot\"; did you mean \"port\"?");
	bad("Port = 9", "F:1: unknown key \"Port\"; did you mean \"port\"?");
	bad("max_connections = 9", "F:1: unknown key \"max_connections\"; did you mean \"max-connections\"?");
	bad("worker = 9", "F:1: unknown key \"worker\"; did you mean \"workers\"?");
	bad("idletimeout = {9, 8}", "F:1: unknown key \"idletimeout\"; did you mean \"idle-timeout\"?");
	bad("zzzzzzzzzzzz = 9",
	    "F:1: unknown key \"zzzzzzzzzzzz\"; echod.conf(5) and \"echod -T\" list all keys");
	bad("end-of-file = reached", "F:1: unknown key \"end-of-file\"...");
	bad("listen|x = 1", "F:1: unknown key \"listen|x\"...");
	bad("\x1b[2J = 1", "F:1: unknown key \"\\x1B[2J\"...");
	bad("%s%n = 1", "F:1: unknown key \"%s%n\"...");
	bad("\x1b[2J = {",
	    "F:1: \"\\x1B[2J\": the list is never closed...\nF:1: unknown key \"\\x1B[2J\"...");
	bad("\x1b[2J = *", "F:1: \"\\x1B[2J\": \"*\" has...\nF:1: unknown key \"\\x1B[2J\"...");
	bad("\x1b[2J = =", "F:1: \"\\x1B[2J\": a value belongs...\nF:1: unknown key \"\\x1B[2J\"...");
}

static void refuses_unknown_names(void **state)
{
	(void) state;
	bad("model = \"epol\"",
	    "F:1: model: \"epol\" is not a model (did you mean \"epoll\"?); it must be iterative, "
	    "process, prefork, thread, prethread, select, poll, epoll or io_uring");
	bad("model = \"\"", "F:1: model: \"\" is not a model; it must be iterative...");
	bad("model = nginx", "F:1: model: \"nginx\" is not a model; it must be iterative...");
	bad("log-target = \"jornal\"",
	    "F:1: log-target: \"jornal\" is not a log target (did you mean \"journal\"?); "
	    "it must be auto, journal, syslog or stderr");
	bad("log-level = \"warnings\"",
	    "F:1: log-level: \"warnings\" is not a log level (did you mean \"warning\"?); "
	    "it must be err, warning, notice, info or debug");
	bad("protocols = {\"tpc\"}",
	    "F:1: protocols: \"tpc\" is not a protocol (did you mean \"tcp\"?); it must be "
	    "tcp or udp");
	bad("protocols = {}", "F:1: protocols: the list is empty; it must hold \"tcp\", \"udp\" or both");
	bad("protocols = {tcp, udp, tcp}", "F:1: protocols: \"tcp\": listed twice; once is enough");
	bad("user = \"no-such-user\"", "F:1: user: \"no-such-user\": no such user here...");
	bad("user = 0",
	    "F:1: user: \"0\": no such user here; name one that exists (by name, not by number)...");
	bad("group = \"no-such-group\"", "F:1: group: \"no-such-group\": no such group here...");
}

static void refuses_wrong_types(void **state)
{
	(void) state;
	bad("port = {7}", "F:1: port: a list where one value belongs; write port = VALUE without { }");
	bad("model = {}", "F:1: model: a list where one value belongs...");
	bad("log-connections = 1", "F:1: log-connections: \"1\": must be true or false (yes, no, on, off)");
	bad("log-connections = \"\"", "F:1: log-connections: \"\": must be true or false...");
	bad("keep-connections = maybe", "F:1: keep-connections: \"maybe\": must be true or false...");
	bad("allow = 7", "F:1: allow: \"7\": a network is written...");
	bad("allow = true", "F:1: allow: \"true\": a network is written...");
	bad("allow = {\"10.0.0.1/8\", \"::1\", \"x\"}",
	    "F:1: allow: \"10.0.0.1/8\": bits are set beyond the prefix...\nF:1: allow: \"x\": a network is "
	    "written...");
	bad("deny = {\"10.0.0.0/33\"}", "F:1: deny: \"10.0.0.0/33\": the number after \"/\"...");
	bad("udp-trusted = {\"localhost\"}", "F:1: udp-trusted: \"localhost\": a network is written...");
	bad("pidfile = \"echod.pid\"", "F:1: pidfile: \"echod.pid\": must be an absolute path...");
	bad("metrics-file = \"./m\"", "F:1: metrics-file: \"./m\": must be an absolute path...");
	bad("metrics-file = \"/var/\"", "F:1: metrics-file: \"/var/\": names a directory...");
}

static void refuses_broken_syntax(void **state)
{
	(void) state;
	bad("port 9", "F:1: port: no \"=\" after it; a setting is written KEY = VALUE");
	bad("port", "F:1: port: no \"=\" after it...");
	bad("port =", "F:1: port: no value after the \"=\"...");
	bad("port =\nworkers = x", "F:1: port: no value after the \"=\"...\nF:2: workers: \"x\"...");
	bad("port = =", "F:1: port: a value belongs after the \"=\", not \"=\"");
	bad("port = ,", "F:1: port: a value belongs after the \"=\", not \",\"");
	bad("= 9", "F:1: \"=\" does not belong here...");
	bad("\"port\" = 9", "F:1: \"port\" does not belong here...");
	bad("hello world", "F:1: \"hello\" does not belong here...");
	bad("listen = {\"*\"", "F:1: listen: the list is never closed; end it with }");
	bad("listen = {\"*\"\nport = 0", "F:1: listen: the list is never closed...\nF:2: port: \"0\"...");
	bad("listen = {", "F:1: listen: the list is never closed...");
	bad("listen = {,}", "F:1: listen: values in a list have one comma between them, not \",\"");
	bad("listen = {\"::1\",,\"::2\"}",
	    "F:1: listen: values in a list have one comma between them, not \",\"");
	bad("listen = {\"::1\" \"::2\" \"::3\"}",
	    "F:1: listen: values in a list have one comma between them, not \"::2\"");
	bad("listen = {\"::1\"},\nport = 0", "F:1: \",\" does not belong here...\nF:2: port: ...");
	bad("user = \"root\nport = 0\n",
	    "F:1: user: \"root\" is a string without its closing \"...\nF:2: port: ...");
	bad("user = 'root\nport = 0\n",
	    "F:1: user: \"root\" is a string without its closing '...\nF:2: port: ...");
	bad("user = \"root\\\nx\n",
	    "F:1: user: \"root\\\\\" is a string without...\nF:2: \"x\" does not belong...");
	bad("user = \"", "F:1: user: \"\" is a string without its closing \"...");
	bad("user = \"\\", "F:1: user: ...");
}

/* Errors of all kinds are reported once each, in the order of their lines. */
static void reports_all_errors_in_order(void **state)
{
	(void) state;
	bad("workers = 010\n"              /* invalid value */
	    "port = 7 8\n"                 /* invalid syntax */
	    "colour = \"blue\"\n"          /* unknown key */
	    "listen = {\n"
	    "\t\"*\",\n"
	    "\t\"nowhere\",\n"
	    "\t\"unix:x\"\n"
	    "}\n"
	    "port = 9\n"                   /* given twice */
	    "deny = {\"10.0.0.0/33\"\n"    /* list not closed */
	    "user = \"root\n"              /* string not closed */
	    "backlog = 1\n"
	    "model = \"epol\"\n"
	    "include(\"x\")\n"
	    "udp-rate = -1\n"
	    "/* and so on\n",
	    "F:1: workers: \"010\"...\n"
	    "F:2: \"8\" does not belong here...\n"
	    "F:3: unknown key \"colour\"...\n"
	    "F:4: listen: \"nowhere\"...\n"
	    "F:4: listen: \"unix:x\"...\n"
	    "F:9: port: given twice, first in line 2...\n"
	    "F:10: deny: the list is never closed...\n"
	    "F:11: user: \"root\" is a string without...\n"
	    "F:13: model: \"epol\"...\n"
	    "F:14: \"include\" is a call...\n"
	    "F:15: udp-rate: \"-1\"...\n"
	    "F:16: \"/*\" begins a comment...");
}

/* ---- unusual files ---- */

static void reports_a_byte_order_mark(void **state)
{
	(void) state;
	bad("\xef\xbb\xbfport = 8\nport = 0\n",
	    "F:1: begins with a byte-order mark; save the file as UTF-8 without one");
	bad("\xef\xbb\xbf", "F:1: begins with a byte-order mark; save the file as UTF-8 without one");
	bad("\xff\xfep",
	    "F:1: begins with the byte-order mark of UTF-16; save the file as UTF-8 without one");
	bad("\xfe\xffp",
	    "F:1: begins with the byte-order mark of UTF-16; save the file as UTF-8 without one");
}

static void reports_an_empty_variable(void **state)
{
	(void) state;
	assert_int_equal(setenv("ECHOD_TEST_EMPTY", "", 1), 0);
	bad("port = ${ECHOD_TEST_EMPTY}",
	    "F:1: port: \"\" is not a whole number from 1 to 65535, written in decimal digits "
	    "without leading zeros (the environment variable ECHOD_TEST_EMPTY is set, but empty)");
	bad("# empty\nmodel = \"${ECHOD_TEST_EMPTY:-epoll}\"\nport = 0",
	    "F:2: model: \"\" is not a model; it must be...\n"
	    "F:3: port: \"0\" is not a whole number from 1 to 65535");
	bad("listen = {\"127.0.0.1:${ECHOD_TEST_EMPTY}\"}",
	    "F:1: listen: \"127.0.0.1:\": a port is a number from 1 to 65535, in "
	    "decimal without leading zeros (the environment variable ECHOD_TEST_EMPTY is set, but empty)");
	conf_free(good("pidfile = \"${ECHOD_TEST_EMPTY}\""));
	assert_int_equal(unsetenv("ECHOD_TEST_EMPTY"), 0);
}

static void refuses_nul_bytes(void **state)
{
	struct conf *conf;
	char *told;

	(void) state;
	assert_int_equal(read_length(&conf, "port = 9\n\0workers = 2\n", 22, &told), -EINVAL);
	assert_string_equal(told, "F:2: a NUL byte; the file must be plain text\n");
	free(told);
	assert_int_equal(read_length(&conf, "", 1, &told), -EINVAL);
	assert_string_equal(told, "F:1: a NUL byte; the file must be plain text\n");
	free(told);
}

/* `before` and copies of `unit`, together at most `size` bytes. The caller frees the text. */
static char *repeat(const char *before, const char *unit, size_t size)
{
	char *text = malloc(size + 1);
	size_t used = strlen(before), step = strlen(unit);

	assert_non_null(text);
	memcpy(text, before, used);
	for (; used + step <= size; used += step)
		memcpy(text + used, unit, step);
	text[used] = '\0';
	return text;
}

static void refuses_large_and_deeply_nested_files(void **state)
{
	static const struct {
		const char *before, *unit, *told;
	} cases[] = {
		{ "x ", "{", "F:1: \"x\" is a section..." },
		{ "allow = ", "{", "F:1: allow: a list holds values alone..." },
		{ "allow = {", "\"", "F:1: allow: " },
		{ "", "a{", "F:1: \"a\" is a section..." },
		{ "", "(", "F:1: \"(\" does not belong here..." },
		{ "", "x ", "F:1: \"x\" does not belong here..." },
		{ "model = ", "e", "F:1: model: \"eeee" },
		{ "", "e", "F:1: \"eeee" },
		{ "model = \"", "e", "F:1: model: " },
		{ "", "/* ", "F:1: \"/*\" begins a comment" },
		{ "listen = ", "=", "F:1: listen: " },
		{ "include(", "include(", "F:1: \"include\" is a call" },
		{ "", "${a", "F:1: " },
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = repeat(cases[i].before, cases[i].unit, 1 << 17), *told;
		struct conf *conf;

		assert_int_equal(read_length(&conf, text, strlen(text), &told), -EINVAL);
		if (strncmp(told, cases[i].told, strcspn(cases[i].told, ".")) != 0)
			fail_msg("%s%s: %.200s", cases[i].before, cases[i].unit, told);
		assert_null(strstr(told, "libconfuse"));
		free(told);
		free(text);
	}
}

static void refuses_a_path_that_is_too_long(void **state)
{
	char *text = repeat("pidfile = \"", "/abcdefg", 5000), *whole;

	(void) state;
	assert_true(asprintf(&whole, "%s\"", text) > 0);
	bad(whole, "F:1: pidfile: \"/abcdefg...");
	free(whole);
	free(text);
}

static void reports_a_limited_number_of_errors(void **state)
{
	char *text = repeat("", "x=1\n", 4 * 1234), *told, *last;
	struct conf *conf;

	(void) state;
	assert_int_equal(read_length(&conf, text, strlen(text), &told), -EINVAL);
	last = strstr(told, "F:1000: ");
	assert_non_null(last);
	assert_string_equal(strchr(last, '\n') + 1, "F: and 234 more; is it an echod.conf?\n");
	free(told);
	free(text);
}

static void reads_up_to_a_mebibyte(void **state)
{
	char *text = repeat("port = 9\n", "# a comment\n", (1 << 20) - 1), *told;
	struct conf *conf = good(text);

	(void) state;
	assert_int_equal(conf->port, 9);
	conf_free(conf);
	free(text);

	text = repeat("", " ", (1 << 20) + 1);
	assert_int_equal(read_length(&conf, text, strlen(text), &told), -EINVAL);
	assert_string_equal(told, "F: longer than 1048576 bytes; is it an echod.conf?\n");
	free(told);
	free(text);
}

/* ---- files ---- */

static int make_directory(void **state)
{
	char path[] = "/tmp/test_conf.XXXXXX";

	if (!mkdtemp(path))
		return -1;
	*state = strdup(path);
	return *state ? 0 : -1;
}

static int remove_directory(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/echod.conf", (char *) *state);
	unlink(path);
	rmdir(*state);
	free(*state);
	return 0;
}

static int read_path(const char *path, char **told)
{
	struct diagnostics errors = { 0 };
	struct conf *conf;
	int r = conf_read(&conf, path, &no_overrides, model_names, NULL, &errors);

	*told = errors_text(&errors);
	assert_int_equal(r == 0, conf != NULL);
	conf_free(conf);
	return r;
}

static void reports_files_that_cannot_be_read(void **state)
{
	const char *directory = *state;
	char path[64], expected[256], *told;
	FILE *file;

	snprintf(path, sizeof(path), "%s/echod.conf", directory);
	assert_int_equal(read_path(path, &told), -ENOENT);
	snprintf(expected, sizeof(expected), "%s: cannot be opened: No such file or directory; ", path);
	assert_int_equal(strncmp(told, expected, strlen(expected)), 0);
	free(told);

	assert_int_equal(read_path(directory, &told), -EISDIR);
	snprintf(expected, sizeof(expected), "%s: cannot be read: Is a directory; ", directory);
	assert_int_equal(strncmp(told, expected, strlen(expected)), 0);
	free(told);

	file = fopen(path, "w");
	assert_non_null(file);
	fputs("\nport = 0\n", file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(read_path(path, &told), -EINVAL);
	snprintf(expected, sizeof(expected), "%s:2: port: \"0\" is not a whole number from 1 to 65535\n",
	         path);
	assert_string_equal(told, expected);
	free(told);

	if (geteuid() != 0) {
		assert_int_equal(chmod(path, 0), 0);
		assert_int_equal(read_path(path, &told), -EACCES);
		free(told);
	}
}

static void reads_special_files(void **state)
{
	int before = count_descriptors();
	char *told;

	(void) state;
	assert_int_equal(read_path("/dev/null", &told), 0);
	free(told);
	assert_int_equal(read_path("/dev/zero", &told), -EINVAL);
	assert_string_equal(told, "/dev/zero: longer than 1048576 bytes; is it an echod.conf?\n");
	free(told);
	/* Directives of printf(3) in a name are printed as they are. */
	assert_int_equal(read_path("/nonexistent/%s%n", &told), -ENOENT);
	assert_int_equal(strncmp(told, "/nonexistent/%s%n: cannot be opened: ", 37), 0);
	free(told);
	assert_int_equal(count_descriptors(), before);
}

/* ---- the command line ---- */

static void the_command_line_overrides_the_file(void **state)
{
	static const char text[] = "model = \"poll\"\nworkers = 1\nport = 8\nlog-level = \"err\"\nlisten = "
	                           "{\"::1\"}\n";
	struct conf_overrides overrides = {
		.model = "select", .log_level = "debug", .workers = 0, .port = 9
	};
	struct diagnostics errors = { 0 };
	struct conf *conf;

	(void) state;
	assert_int_equal(conf_read_text(&conf, "F", text, strlen(text), &overrides, model_names, NULL,
	                                &errors),
	                 0);
	assert_string_equal(conf->model, "select");
	assert_int_equal(conf->workers, 0);
	assert_int_equal(conf->port, 9);
	assert_int_equal(addr_port(&conf->listen[0].addr), 9);
	assert_int_equal(conf->log_level, LOG_DEBUG);
	assert_int_equal(conf->origin[CONF_MODEL].source, CONF_FROM_COMMAND_LINE);
	assert_int_equal(conf->origin[CONF_WORKERS].source, CONF_FROM_COMMAND_LINE);
	assert_int_equal(conf->origin[CONF_PORT].source, CONF_FROM_COMMAND_LINE);
	assert_int_equal(conf->origin[CONF_LOG_LEVEL].source, CONF_FROM_COMMAND_LINE);
	assert_int_equal(conf->origin[CONF_LISTEN].source, CONF_FROM_FILE);
	conf_free(conf);

	/* An overridden value of the file must still be valid. */
	assert_int_equal(conf_read_text(&conf, "F", "port = 0", 8, &overrides, model_names, NULL, &errors),
	                 -EINVAL);
	assert_null(conf);
	assert_int_equal(errors.count, 1);
	diag_clear(&errors);
}

static int finds_fault(const struct conf *conf, struct diagnostics *errors)
{
	conf_error_at(conf, CONF_WORKERS, errors, "%u are impossible", conf->workers);
	return -EINVAL;
}

static void reports_errors_of_the_check(void **state)
{
	static const struct {
		const char *text, *told;
	} cases[] = {
		{ "workers = 4", "F:1: 4 are impossible\n" },
		{ "\nprot = 4", "F:2: unknown key \"prot\"; did you mean \"port\"?\nF: 0 are impossible\n" },
		{ "workers = 4,", "F:1: \",\" does not belong here; a setting is written KEY = VALUE\nF:1: 4 "
		                  "are impossible\n" },
		{ "workers = {4}",
		  "F:1: workers: a list where one value belongs; write workers = VALUE without { }\n" },
		{ "listen = {}",
		  "F:1: listen: the list is empty; it must hold \"*\" or an address at least\n" },
		{ "model = \"\x01\"",
		  "F:1: model: \"\\x01\": has the control character \\x01; write printable characters only"
		  "\n" },
		{ "listen = {\"*:8\", \"*:8\"}",
		  "F:1: listen: \"*:8\": the same as \"*:8\", listed before; once is enough\n" },
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct diagnostics errors = { 0 };
		struct conf *conf;
		char *told;

		assert_int_equal(conf_read_text(&conf, "F", cases[i].text, strlen(cases[i].text),
		                                &no_overrides, model_names, finds_fault, &errors),
		                 -EINVAL);
		assert_null(conf);
		told = errors_text(&errors);
		assert_string_equal(told, cases[i].told);
		free(told);
	}
}

static void reports_the_origin_of_a_value(void **state)
{
	struct conf_overrides overrides = { .model = "select", .workers = -1, .port = -1 };
	struct diagnostics errors = { 0 };
	struct conf *conf;
	char *told;

	(void) state;
	assert_int_equal(conf_read_text(&conf, "%s", "\nworkers = 4", 12, &overrides, model_names, NULL,
	                                &errors),
	                 0);
	conf_error_at(conf, CONF_WORKERS, &errors, "workers: %d%% wrong", 100);
	conf_error_at(conf, CONF_MODEL, &errors, "model: %s", "wrong");
	conf_error_at(conf, CONF_PORT, &errors, "port: wrong");
	told = errors_text(&errors);
	assert_string_equal(told, "%s:2: workers: 100% wrong\ncommand line: model: wrong\n%s: port: wrong\n");
	free(told);
	conf_free(conf);
	diag_clear(&errors);
}

static void keys_have_names(void **state)
{
	(void) state;
	assert_string_equal(conf_key_name(CONF_MODEL), "model");
	assert_string_equal(conf_key_name(CONF_MAX_PER_SOURCE), "max-per-source");
	assert_string_equal(conf_key_name(CONF_METRICS_FILE), "metrics-file");
}

/* ---- the dump ---- */

/* A dump of the configuration can be read, and gives the same dump. */
static void check_round_trip(const char *text)
{
	struct conf *conf = good(text), *again;
	char *printed = dump(conf), *reprinted;

	again = good(printed);
	reprinted = dump(again);
	assert_string_equal(printed, reprinted);
	for (int key = 0; key < CONF_KEYS; key++)
		assert_int_equal(again->origin[key].line, key + 1);
	free(printed);
	free(reprinted);
	conf_free(conf);
	conf_free(again);
}

static void a_dump_can_be_read(void **state)
{
	struct conf *conf = good(every_key);
	char *printed = dump(conf);

	(void) state;
	assert_string_equal(printed, every_key);
	free(printed);
	conf_free(conf);

	check_round_trip("");
	check_round_trip(every_key);
	check_round_trip("protocols = {udp}");
	check_round_trip("protocols = {udp, tcp}");
	check_round_trip("pidfile = '/\"\\\\${HOME}$ \\'#//*{}'");
	check_round_trip("pidfile = \"/\xff\xc3\x9b\xe2\x82\xac\"");
}

static bool is_control(int c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

/* Strings may have all bytes but control characters: a dump must not send commands to a terminal, nor begin a
 * line within a value. */
static void keeps_every_byte_of_a_string(void **state)
{
	(void) state;
	for (int c = 1; c < 256; c++) {
		char text[64], want[128], *printed;
		struct conf *conf, *again;

		if (c == '\n')
			snprintf(text, sizeof(text), "metrics-file = \"/a\\nb\"");
		else
			snprintf(text, sizeof(text), "metrics-file = \"/a%s%cb\"",
			         c == '"' || c == '\\' ? "\\" : "", c);
		if (is_control(c)) {
			snprintf(want, sizeof want,
			         "F:1: metrics-file: \"/a\\x%02Xb\": has the control character \\x%02X; "
			         "write...",
			         (unsigned) c, (unsigned) c);
			if (!strchr("\n\r\t", c))
				bad(text, want);
			continue;
		}
		conf = good(text);
		assert_int_equal(strlen(conf->metrics_file), 4);
		assert_int_equal((unsigned char) conf->metrics_file[2], c);
		printed = dump(conf);
		again = good(printed);
		assert_string_equal(again->metrics_file, conf->metrics_file);
		free(printed);
		conf_free(conf);
		conf_free(again);
	}
}

/* One error for each value, in each notation and from the environment. Numbers and choices have errors of
 * their own. */
static void refuses_control_characters(void **state)
{
	static const char *const keys[] = { "model", "user", "group", "pidfile", "metrics-file" };
	char text[128], want[128];

	(void) state;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		snprintf(text, sizeof text, "%s = \"/\\e[2J\"", keys[i]);
		snprintf(want, sizeof want,
		         "F:1: %s: \"/\\x1B[2J\": has the control character \\x1B; write...", keys[i]);
		bad(text, want);
	}
	bad("listen = {\"unix:/a\\nb\", \"*\"}",
	    "F:1: listen: \"unix:/a\\x0Ab\": has the control character \\x0A; write...");
	bad("allow = {\"10.0.0.0/8\\t\"}",
	    "F:1: allow: \"10.0.0.0/8\\x09\": has the control character \\x09; write...");
	bad("deny = {'\x7f'}", "F:1: deny: \"\\x7F\": has the control character \\x7F; write...");
	bad("pidfile = \"/\xc2\x9b\"",
	    "F:1: pidfile: \"/\\xC2\\x9B\": has the control character \\x9B; write...");
	setenv("ECHOD_TEST_CONTROL", "/a\nb", 1);
	bad("pidfile = \"${ECHOD_TEST_CONTROL}\"",
	    "F:1: pidfile: \"/a\\x0Ab\": has the control character \\x0A; write...");
	unsetenv("ECHOD_TEST_CONTROL");
	check_round_trip("pidfile = \"/\xc3\x9b\"");
}

/* The shipped file has every key commented out, with its default. */
static void the_shipped_file_has_the_defaults(void **state)
{
	const char *source = getenv("ECHOD_SRCDIR");
	char path[4096], line[512], *all, *bare;
	size_t all_length, bare_length;
	FILE *file, *all_out, *bare_out;
	struct conf *defaults = good("");
	char *printed = dump(defaults);
	struct conf *conf;

	(void) state;
	snprintf(path, sizeof(path), "%s/etc/echod.conf", source ? source : ".");
	file = fopen(path, "r");
	if (!file)
		fail_msg("%s: %s; ECHOD_SRCDIR must name the source tree", path, strerror(errno));
	all_out = open_memstream(&all, &all_length);
	bare_out = open_memstream(&bare, &bare_length);
	while (fgets(line, sizeof(line), file)) {
		bool key = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z';

		/* A line is a setting (no blank after "#"), an explanation ("# "), or empty. */
		assert_true(key || line[0] == '\n' || strncmp(line, "# ", 2) == 0 ||
		            strcmp(line, "#\n") == 0);
		assert_in_range(strlen(line), 1, 101);
		fputs(line, all_out);
		fputs(key ? line + 1 : "", bare_out);
	}
	fclose(file);
	fclose(all_out);
	fclose(bare_out);

	/* The shipped file sets no key. Without "#", its settings are the dump of the defaults. */
	conf = good(all);
	for (int key = 0; key < CONF_KEYS; key++)
		assert_int_equal(conf->origin[key].source, CONF_FROM_DEFAULT);
	conf_free(conf);
	assert_string_equal(bare, printed);
	conf = good(bare);
	check_defaults(conf);
	conf_free(conf);
	free(all);
	free(bare);
	free(printed);
	conf_free(defaults);
}

/* ---- random files ---- */

/* libconfuse must be able to parse each text that the syntax check accepts, and the dump must give the same
 * configuration. The texts are random sequences of tokens that are difficult to parse. */
static void agrees_with_libconfuse(void **state)
{
	static const char *const pieces[] = {
		"port",
		"workers",
		"allow",
		"listen",
		"pidfile",
		"user",
		" = ",
		"=",
		"+=",
		"{",
		"}",
		"(",
		")",
		",",
		"\n",
		" ",
		"\t",
		"\r",
		"\"",
		"'",
		"\\",
		"\\\"",
		"#",
		"//",
		"/*",
		"*/",
		"/",
		"*",
		"+",
		"$",
		"${HOME}",
		"${",
		"7",
		"0",
		"\"::1\"",
		"\"*\"",
		"/x",
		"'/y'",
		"\"\"",
		"include",
		"\xc3\xa4",
		"\x01",
		"~",
		";",
		"port = 9\n",
		"allow = {\"::1\"}\n",
		"pidfile = \"/a\"\n",
		"/* c */",
		"# c\n",
		"listen = {\"*\", \"*:9\"}",
	};
	uint32_t seed = 1;
	unsigned taken = 0;

	(void) state;
	for (int round = 0; round < 8000; round++) {
		char text[512], *told;
		size_t length = 0;
		struct conf *conf;
		uint32_t count;

		seed = seed * 1664525 + 1013904223;
		count = (seed >> 16) % 14;
		text[0] = '\0';
		for (uint32_t i = 0; i < count; i++) {
			seed = seed * 1664525 + 1013904223;
			length += (size_t)
				snprintf(text + length, sizeof(text) - length, "%s",
			                 pieces[(seed >> 16) % (sizeof(pieces) / sizeof(pieces[0]))]);
			assert_true(length < sizeof(text));
		}
		if (read_length(&conf, text, length, &told) == 0) {
			check_round_trip(text);
			taken++;
		} else if (strstr(told, "libconfuse")) {
			fail_msg("\"%s\": %s", text, told);
		}
		free(told);
		conf_free(conf);
	}
	assert_in_range(taken, 500, 7500);
}

static void modes_are_three_octal_digits(void **state)
{
	static const struct {
		const char *text;
		unsigned mode;
	} right[] = { { "000", 0 }, { "660", 0660 }, { "0660", 0660 }, { "0777", 0777 } };
	static const char *const wrong[] = { "",    "0",    "66",  "060 ", "1660", "00660",
		                             "668", "0668", "866", "0x66", "-660" };
	char text[64], expected[128];

	(void) state;
	for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
		struct conf *conf;

		snprintf(text, sizeof text, "unix-mode = \"%s\"", right[i].text);
		conf = good(text);
		assert_int_equal(conf->unix_mode, right[i].mode);
		conf_free(conf);
	}
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		snprintf(text, sizeof text, "unix-mode = \"%s\"", wrong[i]);
		snprintf(expected, sizeof expected,
		         "F:1: unix-mode: \"%s\": must be the permissions of a file...", wrong[i]);
		bad(text, expected);
	}
}

/* 0 has a special meaning. Numbers between 0 and the minimum are refused. */
static void zero_may_be_outside_the_range(void **state)
{
	struct conf *conf = good("socket-buffer = 0");

	(void) state;
	assert_int_equal(conf->socket_buffer, 0);
	conf_free(conf);
	bad("socket-buffer = 1", "F:1: socket-buffer: \"1\" is not 0 or a whole number from...");
}

static void only_some_keys_need_a_restart(void **state)
{
	struct conf *one = good("user = \"root\"\nmodel = \"epoll\""), *other = good("model = \"poll\"");

	(void) state;
	assert_true(conf_needs_restart(one, other, CONF_USER));
	assert_false(conf_needs_restart(one, one, CONF_USER));
	assert_false(conf_needs_restart(one, other, CONF_PIDFILE));
	assert_false(conf_needs_restart(one, other, CONF_MODEL));
	conf_free(one);
	conf_free(other);
}

static int finds_nothing(const struct conf *conf, struct diagnostics *diag)
{
	(void) conf;
	(void) diag;
	return 0;
}

/* A file of `length` blanks. */
static int read_blank_file(size_t length)
{
	struct diagnostics errors = { 0 };
	int fd = memfd_create("conf", MFD_CLOEXEC), r;
	char *text = malloc(length), path[64];
	struct conf *conf;

	assert_non_null(text);
	memset(text, ' ', length);
	assert_int_equal(write(fd, text, length), length);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	r = conf_read(&conf, path, &no_overrides, model_names, NULL, &errors);
	conf_free(conf);
	diag_clear(&errors);
	free(text);
	close(fd);
	return r;
}

static void files_have_a_maximum_size(void **state)
{
	int open = count_descriptors();

	(void) state;
	assert_int_equal(read_blank_file(1024 * 1024), 0);
	assert_int_equal(read_blank_file(1024 * 1024 + 1), -EINVAL);
	assert_int_equal(count_descriptors(), open);
}

static int reads_as_descriptor_0(void)
{
	struct diagnostics errors = { 0 };
	struct conf *conf;

	close(0);
	if (conf_read(&conf, "/dev/null", &no_overrides, model_names, NULL, &errors) != 0)
		return 1;
	return conf && errors.count == 0 ? 0 : 2;
}

/* As in a daemon that was started without standard input. */
static void files_may_be_descriptor_0(void **state)
{
	(void) state;
	assert_int_equal(in_child(reads_as_descriptor_0), 0);
}

static void zero_workers_of_the_command_line_override_the_file(void **state)
{
	struct conf_overrides overrides = no_overrides;
	struct diagnostics errors = { 0 };
	struct conf *conf;

	(void) state;
	overrides.workers = 0;
	assert_int_equal(conf_read_text(&conf, "F", "workers = 3", 11, &overrides, model_names, NULL,
	                                &errors),
	                 0);
	assert_int_equal(conf->workers, 0);
	conf_free(conf);
	diag_clear(&errors);
}

/* Text that follows a comment without a blank is read. */
static void comments_need_no_blank_after_them(void **state)
{
	struct conf *conf = good("port =/*c*/9\nallow={/*c*/\"::1\"/*c*/}/*c*/workers=/*c*/3");

	(void) state;
	assert_int_equal(conf->port, 9);
	assert_int_equal(conf->workers, 3);
	assert_int_equal(conf->text[CONF_ALLOW].count, 1);
	conf_free(conf);
}

/* Each syntax error is one message, without further messages that result from it. */
static void reports_each_syntax_error_once(void **state)
{
	static const struct {
		const char *text, *told;
	} cases[] = {
		{ "allow = {\"::1\"\nport += 9",
		  "F:1: allow: the list is never closed...\nF:2: port: \"+=\"..." },
		{ "allow = {\"::1\"\ninclude(\"x\")",
		  "F:1: allow: the list is never closed...\nF:2: \"include\" is a call..." },
		{ "a {\nport 9\n}", "F:1: \"a\" is a section...\nF:2: port: no \"=\" after it..." },
		{ "a {\nport 9 8\n}\n}", "F:1: \"a\" is a section...\nF:2: port: no \"=\" after it...\nF:4: "
		                         "\"}\" does not belong..." },
		{ "port 9 }", "F:1: port: no \"=\" after it..." },
		{ "allow = {{\"::1\"}}", "F:1: allow: a list holds values alone..." },
		{ "allow = {{{\"::1\"}}}", "F:1: allow: a list holds values alone..." },
		/* values of a rejected statement are not read */
		{ "port = 9\nport = x", "F:2: port: given twice, first in line 1..." },
		{ "another(1)",
		  "F:1: \"another\" is a call, and echod.conf has none; a setting is written..." },
		/* the first key of the table */
		{ "model 9", "F:1: model: no \"=\" after it..." },
		{ "model {\n}", "F:1: model: no \"=\" after it..." },
		/* a statement without "=" also counts as giving its key */
		{ "port\nport = 9",
		  "F:1: port: no \"=\" after it...\nF:2: port: given twice, first in line 1..." },
		{ "port = 9\nport\nport = 8",
		  "F:2: port: no \"=\" after it...\nF:3: port: given twice, first in line 1..." },
		/* the port is unknown, so the addresses cannot be compared */
		{ "port\nlisten = {\"*\", \"*:7\"}", "F:1: port: no \"=\" after it..." },
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		bad(cases[i].text, cases[i].told);
}

static void the_syntax_check_fills_in_all_keys(void **state)
{
	struct diagnostics diag = { 0 };
	struct syntax_key keys[CONF_KEYS];
	char text[] = "\nport = 9";

	(void) state;
	memset(keys, 0x5a, sizeof keys);
	syntax_check(text, strlen(text), keys, "F", &diag);
	for (enum conf_key key = 0; key < CONF_KEYS; key++) {
		assert_int_equal(keys[key].line, key == CONF_PORT ? 2 : 0);
		assert_false(keys[key].invalid);
		assert_string_equal(keys[key].empty_variable, "");
	}
	assert_int_equal(diag.count, 0);
}

static void a_byte_order_mark_alone_is_reported(void **state)
{
	(void) state;
	bad("\xef\xbb\xbf", "F:1: begins with a byte-order mark...");
	bad("\xff\xfe", "F:1: begins with the byte-order mark of UTF-16...");
	bad("\xfe\xff", "F:1: begins with the byte-order mark of UTF-16...");
}

static void reads_every_model_name(void **state)
{
	(void) state;
	for (size_t i = 0; model_names[i]; i++) {
		char text[64];
		struct conf *conf;

		snprintf(text, sizeof text, "model = %s", model_names[i]);
		conf = good(text);
		assert_string_equal(conf->model, model_names[i]);
		conf_free(conf);
	}
}

/* PATH_MAX includes the NUL. */
static void paths_have_a_maximum_length(void **state)
{
	char text[PATH_MAX + 64];
	struct conf *conf;

	(void) state;
	for (size_t length = PATH_MAX - 1; length <= PATH_MAX; length++) {
		size_t at = (size_t) sprintf(text, "pidfile = \"/");

		memset(text + at, 'x', length - 1);
		strcpy(text + at + length - 1, "\"");
		if (length == PATH_MAX) {
			bad(text, "F:1: pidfile: \"/xxx...");
			break;
		}
		conf = good(text);
		assert_int_equal(strlen(conf->pidfile), length);
		conf_free(conf);
	}
}

static void reads_the_longest_wildcard(void **state)
{
	struct conf *conf = good("listen = {\"*:65535\"}");

	(void) state;
	assert_int_equal(addr_port(&conf->listen[0].addr), 65535);
	assert_true(conf->listen[0].wildcard);
	conf_free(conf);
	bad("listen = {\"*:655350\"}", "F:1: listen: \"*:655350\": ...");
	bad("listen = {\"*:6553500\"}", "F:1: listen: \"*:6553500\": ...");
}

/* An interface may be added later. Its name is kept, and addresses with different names are different. */
static void accepts_missing_interfaces(void **state)
{
	struct conf *conf = good("listen = {\"[fe80::1%none0]:9\", \"fe80::1%none1\"}");

	(void) state;
	assert_int_equal(conf->listen_count, 2);
	assert_string_equal(conf->listen[0].interface, "none0");
	assert_string_equal(conf->listen[1].interface, "none1");
	assert_int_equal(addr_port(&conf->listen[0].addr), 9);
	conf_free(conf);
	bad("listen = {\"[fe80::1%none0]\", \"fe80::1%none0\"}",
	    "F:1: listen: \"fe80::1%none0\": the same as...");
}

/* Each invalid entry of a list is one error. */
static void reports_each_entry_once(void **state)
{
	(void) state;
	bad("listen = {\"unix:/a\\nb\", \"unix:/a\\nb\", \"x\", \"x\", \"*\"}",
	    "F:1: listen: \"unix:/a\\x0Ab\": has...\nF:1: listen: \"unix:/a\\x0Ab\": has...\n"
	    "F:1: listen: \"x\": ...\nF:1: listen: \"x\": ...");
	bad("deny = {\"10.0.0.0/8\\t\", \"x\", \"10.0.0.0/8\"}",
	    "F:1: deny: \"10.0.0.0/8\\x09\": has...\nF:1: deny: \"x\": a network...");
}

/* Messages may be empty, or consist of characters that are escaped. */
static void escapes_messages(void **state)
{
	struct diagnostics diag = { 0 };

	(void) state;
	diag_add(&diag, "%s", "\x01\x02");
	diag_add(&diag, "%s", "");
	diag_add_at(&diag, "F", 0, "%s", "");
	diag_add_at(&diag, "F", 1, "%s", "");
	assert_false(diag.oom);
	assert_int_equal(diag.count, 4);
	assert_string_equal(diag.items[0].text, "\\x01\\x02");
	assert_int_equal(diag.items[0].line, 0);
	assert_string_equal(diag.items[1].text, "");
	assert_string_equal(diag.items[2].text, "F: ");
	assert_string_equal(diag.items[3].text, "F:1: ");
	diag_clear(&diag);
}

/* Messages are sorted by line, then in the order in which they were added; the first thousand remain. */
static void sorts_messages(void **state)
{
	struct diagnostics diag = { 0 };

	(void) state;
	diag_add_at(&diag, "F", 9, "not sorted");
	for (unsigned i = 0; i < 1000; i++)
		diag_add_at(&diag, "F", 10 - i / 100, "%u", i);
	diag_sort(&diag, 1, "F");
	assert_int_equal(diag.count, 1001);
	assert_int_equal(diag.items[0].number, 0);
	for (size_t i = 2; i < diag.count; i++)
		assert_true(diag.items[i - 1].line < diag.items[i].line ||
		            (diag.items[i - 1].line == diag.items[i].line &&
		             diag.items[i - 1].number < diag.items[i].number));
	diag_add_at(&diag, "F", 11, "one more");
	diag_sort(&diag, 1, "F");
	assert_int_equal(diag.count, 1002);
	assert_string_equal(diag.items[1001].text, "F: and 1 more; is it an echod.conf?");
	diag_clear(&diag);
}

static void a_check_that_finds_nothing_changes_nothing(void **state)
{
	struct diagnostics errors = { 0 };
	struct conf *conf;

	(void) state;
	(void) conf_read_text(&conf, "F", "port = 9", 8, &no_overrides, model_names, finds_nothing, &errors);
	assert_non_null(conf);
	assert_int_equal(conf->port, 9);
	assert_int_equal(errors.count, 0);
	conf_free(conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes_are_three_octal_digits),
		cmocka_unit_test(zero_may_be_outside_the_range),
		cmocka_unit_test(only_some_keys_need_a_restart),
		cmocka_unit_test(a_check_that_finds_nothing_changes_nothing),
		cmocka_unit_test(files_may_be_descriptor_0),
		cmocka_unit_test(zero_workers_of_the_command_line_override_the_file),
		cmocka_unit_test(comments_need_no_blank_after_them),
		cmocka_unit_test(reports_each_syntax_error_once),
		cmocka_unit_test(the_syntax_check_fills_in_all_keys),
		cmocka_unit_test(a_byte_order_mark_alone_is_reported),
		cmocka_unit_test(reads_every_model_name),
		cmocka_unit_test(paths_have_a_maximum_length),
		cmocka_unit_test(reads_the_longest_wildcard),
		cmocka_unit_test(accepts_missing_interfaces),
		cmocka_unit_test(reports_each_entry_once),
		cmocka_unit_test(escapes_messages),
		cmocka_unit_test(sorts_messages),
		cmocka_unit_test(reads_an_empty_file),
		cmocka_unit_test(reads_every_key),
		cmocka_unit_test(reads_libconfuse_syntax),
		cmocka_unit_test(reads_comments_anywhere),
		cmocka_unit_test(reads_variables_that_are_set),
		cmocka_unit_test(reads_listen_addresses),
		cmocka_unit_test(refuses_unclosed_comments_and_sections),
		cmocka_unit_test(refuses_invalid_numbers),
		cmocka_unit_test(checks_ranges),
		cmocka_unit_test(refuses_a_key_given_twice),
		cmocka_unit_test(ignores_an_old_errno),
		cmocka_unit_test(refuses_include),
		cmocka_unit_test(refuses_characters_that_would_be_dropped),
		cmocka_unit_test(refuses_unknown_keys),
		cmocka_unit_test(refuses_unknown_names),
		cmocka_unit_test(refuses_wrong_types),
		cmocka_unit_test(refuses_broken_syntax),
		cmocka_unit_test(reports_all_errors_in_order),
		cmocka_unit_test(refuses_nul_bytes),
		cmocka_unit_test(refuses_a_path_that_is_too_long),
		cmocka_unit_test(reports_a_limited_number_of_errors),
		cmocka_unit_test(reads_up_to_a_mebibyte),
		cmocka_unit_test_setup_teardown(reports_files_that_cannot_be_read, make_directory,
		                                remove_directory),
		cmocka_unit_test(reads_special_files),
		cmocka_unit_test(the_command_line_overrides_the_file),
		cmocka_unit_test(reports_errors_of_the_check),
		cmocka_unit_test(reports_the_origin_of_a_value),
		cmocka_unit_test(keys_have_names),
		cmocka_unit_test(reports_a_byte_order_mark),
		cmocka_unit_test(reports_an_empty_variable),
		cmocka_unit_test(a_dump_can_be_read),
		cmocka_unit_test(keeps_every_byte_of_a_string),
		cmocka_unit_test(refuses_control_characters),
		cmocka_unit_test(the_shipped_file_has_the_defaults),
		/* slow tests last */
		cmocka_unit_test(refuses_large_and_deeply_nested_files),
		cmocka_unit_test(files_have_a_maximum_size),
		cmocka_unit_test(agrees_with_libconfuse),
	};

	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
