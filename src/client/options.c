/* SPDX-License-Identifier: ISC */
/* options.c - see options.h */
#include <config.h>

#include "client/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
#include "client/nsec.h"
#include "client/numbers.h"

#define TALK (1u << ACTIVITY_TALK)
#define PING (1u << ACTIVITY_PING)
#define LOAD (1u << ACTIVITY_LOAD)
#define ALL (TALK | PING | LOAD)

#define SIZE_MAX_BYTES (UINT64_C(64) << 20)
#define SECONDS_MAX (1000.0 * 24 * 3600)
#define UDP_PAYLOAD_MAX 65507 /* 65535 less the IPv4 and UDP headers */
#define UDP_PING_MIN 4        /* the number of the probe */
#define UDP_LOAD_MIN 8        /* the number of the message */
#define CONNECT_PAYLOAD_MAX 65536

enum {
	KEY_PING = 256,
	KEY_LOAD,
	KEY_MODE,
	KEY_ENGINE,
	KEY_RATE,
	KEY_WARMUP,
	KEY_RAMP,
	KEY_IDLE,
	KEY_PLOT,
	KEY_JSON,
	KEY_JSON_STREAM,
	KEY_RECONNECT,
	KEY_FLOWS,
	KEY_METRICS,
	KEY_REPORT,
	KEY_SOURCE,
};

static const char *const activity_names[] = { "talking", "--ping", "--load" };
static const char *const mode_names[] = { "rr", "stream", "connect", NULL };
static const char *const discovery_names[] = { "dont", "want", "do", NULL }; /* the values of IP_PMTUDISC_* */
static const char *const engine_names[] = { "auto", "epoll", "io_uring", NULL };

/* Kinds of option values, and the type of the member in which it is stored. */
enum kind {
	KIND_OTHER,    /* no value; see option_apply() */
	KIND_FLAG,     /* no value; bool */
	KIND_TEXT,     /* const char * */
	KIND_COUNT,    /* uint64_t */
	KIND_UNSIGNED, /* unsigned */
	KIND_SIZE,     /* uint64_t, bytes */
	KIND_TIME,     /* uint64_t, nanoseconds; the limits are seconds */
	KIND_NAME,     /* an enum, the index in `names` */
	KIND_ADDRESS,  /* struct addr */
	KIND_TOS,      /* int */
};

/* All options. */
static const struct option_row {
	const char *name;
	int key;
	unsigned activities; /* in which the option is valid */
	enum kind kind;
	size_t offset; /* of the member of struct client_options */
	double min, max;
	const char *const *names;
} option_rows[] = {
#define MEMBER(member) .offset = offsetof(struct client_options, member)
	{ "ping", KEY_PING, ALL, .kind = KIND_OTHER },
	{ "load", KEY_LOAD, ALL, .kind = KIND_OTHER },
	{ "ipv4", '4', ALL, .kind = KIND_OTHER },
	{ "ipv6", '6', ALL, .kind = KIND_OTHER },
	{ "udp", 'u', ALL, KIND_FLAG, MEMBER(udp) },
	{ "size", 's', ALL, KIND_SIZE, MEMBER(size), 1, SIZE_MAX_BYTES },
	{ "timeout", 'W', ALL, KIND_TIME, MEMBER(timeout), 0, SECONDS_MAX },
	{ "source", KEY_SOURCE, ALL, KIND_ADDRESS, MEMBER(sockopts.source) },
	{ "interface", 'I', ALL, KIND_TEXT, MEMBER(sockopts.interface) },
	{ "dscp", 'Q', ALL, KIND_TOS, MEMBER(sockopts.tos) },
	{ "ttl", 't', ALL, KIND_UNSIGNED, MEMBER(sockopts.ttl), 1, 255 },
	{ "pmtudisc", 'M', ALL, KIND_NAME, MEMBER(sockopts.mtu_discovery), .names = discovery_names },
	{ "timestamps", 'D', ALL, KIND_FLAG, MEMBER(timestamps) },
	{ "quiet", 'q', ALL, KIND_FLAG, MEMBER(quiet) },
	{ "json", KEY_JSON, ALL, KIND_FLAG, MEMBER(json) },
	{ "json-stream", KEY_JSON_STREAM, ALL, KIND_FLAG, MEMBER(json_stream) },
	{ "count", 'c', PING, KIND_COUNT, MEMBER(count), 1, UINT32_MAX },
	{ "interval", 'i', PING, KIND_TIME, MEMBER(interval), 0, SECONDS_MAX },
	{ "deadline", 'w', PING, KIND_TIME, MEMBER(deadline), 0.001, SECONDS_MAX },
	{ "reconnect", KEY_RECONNECT, PING, KIND_FLAG, MEMBER(reconnect) },
	{ "flows", KEY_FLOWS, PING, KIND_UNSIGNED, MEMBER(flows), 1, 256 },
	{ "metrics", KEY_METRICS, PING, KIND_TEXT, MEMBER(metrics) },
	{ "mode", KEY_MODE, LOAD, KIND_NAME, MEMBER(mode), .names = mode_names },
	{ "connections", 'n', LOAD, KIND_UNSIGNED, MEMBER(connections), 1, 1000000 },
	{ "depth", 'P', LOAD, KIND_UNSIGNED, MEMBER(depth), 1, 65536 },
	{ "duration", 'd', LOAD, KIND_TIME, MEMBER(duration), 0.01, SECONDS_MAX },
	{ "threads", 'j', LOAD, KIND_UNSIGNED, MEMBER(threads), 1, 1024 },
	{ "rate", KEY_RATE, LOAD, KIND_COUNT, MEMBER(rate), 1, 1000000000 },
	{ "warmup", KEY_WARMUP, LOAD, KIND_TIME, MEMBER(warmup), 0, SECONDS_MAX },
	{ "ramp", KEY_RAMP, LOAD, KIND_TIME, MEMBER(ramp), 0, SECONDS_MAX },
	{ "idle", KEY_IDLE, LOAD, KIND_UNSIGNED, MEMBER(idle), 0, 1000000 },
	{ "report", KEY_REPORT, LOAD, KIND_TIME, MEMBER(report), 0.1, SECONDS_MAX },
	{ "engine", KEY_ENGINE, LOAD, KIND_NAME, MEMBER(engine), .names = engine_names },
	{ "plot", KEY_PLOT, LOAD, KIND_TEXT, MEMBER(plot) },
	{ "help", 'h', ALL, .kind = KIND_OTHER },
	{ "version", 'V', ALL, .kind = KIND_OTHER },
#undef MEMBER
};

#define OPTION_COUNT (sizeof option_rows / sizeof option_rows[0])

static const char help[] = "Usage: echoc [options] HOST [PORT]          talk, or echo stdin to stdout\n"
			   "       echoc --ping [options] HOST [PORT]   measure round-trip times\n"
			   "       echoc --load [options] HOST [PORT]   measure throughput and latency\n"
			   "HOST: NAME or ADDRESS, both also with :PORT, unix:PATH, unix:@NAME; PORT: 7.\n"
			   "  -4 -6 -u                IPv4 only, IPv6 only; UDP instead of TCP\n"
			   "  -s SIZE  -W SECS        bytes of a message; timeout (0: none)\n"
			   "  -I IFACE  --source IP   interface to use; address to send from\n"
			   "  -Q DSCP  -t TTL         46, EF, AF41, 0xb8 (traffic class); hop limit\n"
			   "  -M do|want|dont  -D     don't-fragment flag; timestamp before each line\n"
			   "  -q --json --json-stream less output; one JSON object; one on each line\n"
			   "  -h -V                   print this help; print the version\n"
			   "Ping:  -c COUNT  -i SECS  number of probes; time between probes\n"
			   "  -w SECS  --reconnect    end after SECS; a connection for each probe\n"
			   "  --flows N               N source ports, to compare paths\n"
			   "  --metrics FILE          write the summary as OpenMetrics text\n"
			   "Load:  -n CONNS  -P DEPTH connections; messages outstanding on each\n"
			   "  --mode rr|stream|connect  request-response, bulk, connection a message\n"
			   "  --idle CONNS  -j THREADS  connections that are only open; threads\n"
			   "  -d SECS  --warmup SECS  duration of measurement, and of warm-up before\n"
			   "  --rate N  --ramp SECS   N messages/s in all; start one after the other\n"
			   "  --report SECS           print a line for each interval\n"
			   "  --engine epoll|io_uring  --plot FILE.svg (needs gnuplot)\n"
			   "Exit status: 0 all bytes matched; 1 lost, different, not served; 2 no\n"
			   "connection; 64 usage. Times: 2, 250ms, 5m. Ctrl-\\: summary so far.\n";

static void version_print(void)
{
	printf("echoc %s\n", PACKAGE_VERSION);
#ifdef HAVE_LIBEDIT
	puts("line editing: libedit");
#else
	puts("line editing: none (built without libedit)");
#endif
#ifdef HAVE_LIBURING
	puts("load engines: io_uring (liburing), epoll");
#else
	puts("load engines: epoll (built without liburing)");
#endif
}

static const struct option_row *option_find(int key)
{
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (option_rows[i].key == key)
			return &option_rows[i];
	return NULL;
}

/* "-s/--size" or "--rate". Valid until the next call. */
static const char *option_text(const struct option_row *row)
{
	static char text[40];

	if (row->key < 256)
		snprintf(text, sizeof text, "-%c/--%s", row->key, row->name);
	else
		snprintf(text, sizeof text, "--%s", row->name);
	return text;
}

/* --- values ------------------------------------------------------------------------------------------- */

/* The index of `given` in `names`; -EINVAL with a hint in `expected` if there is none. */
static int name_parse(const char *given, const char *const names[], char *expected, size_t size)
{
	char list[64];
	const char *near;

	for (int i = 0; names[i]; i++)
		if (strcmp(given, names[i]) == 0)
			return i;
	near = suggest_nearest(given, names);
	snprintf(expected, size, "one of %s%s%s%s", suggest_join(list, sizeof list, names),
		 near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	return -EINVAL;
}

/* An IP address without a port; its port is set to 0. Returns 0 or -EINVAL. */
static int address_parse(const char *given, struct addr *address)
{
	struct addr one, other;
	const char *why;

	/* Parsing with two default ports shows whether the address has a port of its own. */
	if (addr_parse(&one, given, 1, &why) < 0 || addr_parse(&other, given, 2, &why) < 0
	    || one.sa.sa_family == AF_UNIX || addr_port(&one) == addr_port(&other))
		return -EINVAL;
	*address = one;
	if (one.sa.sa_family == AF_INET)
		address->in.sin_port = 0;
	else
		address->in6.sin6_port = 0;
	return 0;
}

/* Store the value of the option. Returns false, with an error printed, if it is invalid. */
static bool value_parse(struct client_options *options, const struct option_row *row, const char *given)
{
	void *member = (char *) options + row->offset;
	uint64_t wide = 0;
	char expected[128];
	int r = 0;

	switch (row->kind) {
	case KIND_OTHER:
		break;
	case KIND_FLAG:
		*(bool *) member = true;
		break;
	case KIND_TEXT:
		*(const char **) member = given;
		break;
	case KIND_COUNT:
	case KIND_UNSIGNED:
		snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", row->min, row->max);
		r = number_parse(given, (uint64_t) row->min, (uint64_t) row->max, &wide);
		if (row->kind == KIND_UNSIGNED)
			*(unsigned *) member = (unsigned) wide;
		else
			*(uint64_t *) member = wide;
		break;
	case KIND_SIZE:
		snprintf(expected, sizeof expected, "%.0f to %.0f bytes, K or M may follow the number",
			 row->min, row->max);
		r = number_parse_size(given, (uint64_t) row->min, (uint64_t) row->max, member);
		break;
	case KIND_TIME:
		snprintf(expected, sizeof expected,
			 "a time from %g to %.0f seconds, as in 2, 0.5, 250ms or 5m", row->min, row->max);
		r = number_parse_time(given, row->min, row->max, member);
		break;
	case KIND_NAME:
		r = name_parse(given, row->names, expected, sizeof expected);
		*(unsigned *) member = (unsigned) r;
		break;
	case KIND_ADDRESS:
		snprintf(expected, sizeof expected, "an IPv4 or IPv6 address of this host, without a port");
		r = address_parse(given, member);
		break;
	case KIND_TOS:
		snprintf(expected, sizeof expected,
			 "a DSCP: 0 to 63, EF, VA, LE, CS0 to CS7, AF11 to AF43; or a traffic class: 0x00 to "
			 "0xff");
		r = number_parse_tos(given, member);
		break;
	}
	if (r < 0)
		client_error(OUTCOME_USAGE, "%s: invalid value \"%s\": it takes %s", option_text(row), given,
			     expected);
	return r >= 0;
}

/* The effects of options that are not a value. */
static void option_apply(struct client_options *options, int key)
{
	switch (key) {
	case KEY_PING:
		options->activity = ACTIVITY_PING;
		break;
	case KEY_LOAD:
		options->activity = ACTIVITY_LOAD;
		break;
	case '4':
		options->sockopts.family = AF_INET;
		break;
	case '6':
		options->sockopts.family = AF_INET6;
		break;
	case 'u':
		options->sockopts.type = SOCK_DGRAM;
		break;
	case KEY_JSON_STREAM:
		options->json = true;
		break;
	case 'W':
		if (options->timeout == 0)
			options->timeout = NSEC_NEVER;
		break;
	}
}

/* --- combinations ------------------------------------------------------------------------------------- */

/* Whether all options given (a bit for each row) are valid for the activity. */
static bool activities_check(const struct client_options *options, uint64_t given)
{
	if ((given & UINT64_C(1) << (option_find(KEY_PING) - option_rows))
	    && (given & UINT64_C(1) << (option_find(KEY_LOAD) - option_rows))) {
		client_error(OUTCOME_USAGE, "--ping or --load, not both");
		return false;
	}
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		unsigned activities = option_rows[i].activities;

		if ((given & UINT64_C(1) << i) == 0 || (activities & 1u << options->activity) != 0)
			continue;
		client_error(OUTCOME_USAGE, "%s is for %s, not for %s", option_text(&option_rows[i]),
			     activities == PING   ? "--ping"
			     : activities == LOAD ? "--load"
						  : "--ping and --load",
			     activity_names[options->activity]);
		return false;
	}
	return true;
}

static bool options_check(const struct client_options *options)
{
	bool udp = options->udp, connect = options->mode == LOAD_CONNECT;
	uint64_t size = options->size != 0 ? options->size : UDP_LOAD_MIN;
	const struct {
		bool conflict;
		const char *message;
	} rules[] = {
		{ udp && size > UDP_PAYLOAD_MAX, "-s/--size: a UDP datagram holds at most 65507 bytes" },
		{ udp && options->activity == ACTIVITY_PING && size < UDP_PING_MIN,
		  "-s/--size: a UDP probe needs 4 bytes or more, because it carries its number" },
		{ udp && options->activity == ACTIVITY_LOAD && size < UDP_LOAD_MIN,
		  "-s/--size: a UDP message needs 8 bytes or more, because it carries its number" },
		{ udp && options->reconnect, "--reconnect is for TCP: UDP has no connections" },
		{ udp && options->mode != LOAD_RR,
		  "--mode: UDP has no streams and no connections, only rr can be used with -u" },
		{ udp && options->engine == ENGINE_URING, "--engine: with -u only epoll can be used" },
		{ udp && options->idle > 0, "--idle is for TCP: UDP has no connections to keep open" },
		{ !udp && options->sockopts.tos >= 0 && (options->sockopts.tos & 3) != 0,
		  "-Q/--dscp: with TCP the lowest two bits, ECN, are set by the kernel: they must be 0" },
		{ options->flows > 1 && options->reconnect,
		  "--flows: each flow keeps its connection and its source port: not with --reconnect" },
		{ options->report > 0 && options->json && !options->json_stream,
		  "--report prints intervals: use --json-stream instead of --json" },
		{ options->rate > 0 && options->mode == LOAD_STREAM,
		  "--rate counts messages: use it with --mode rr or connect" },
		{ connect && options->depth > 1,
		  "-P/--depth: a connection carries one message in --mode connect" },
		{ connect && size > CONNECT_PAYLOAD_MAX,
		  "-s/--size: --mode connect sends at most 64K on a connection" },
		{ options->threads > options->connections,
		  "-j/--threads: there are fewer connections (-n) than threads" },
	};

	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
		if (rules[i].conflict) {
			client_error(OUTCOME_USAGE, "%s", rules[i].message);
			return false;
		}
	}
	return true;
}

/* Fill in the defaults that depend on other options. */
static void options_default(struct client_options *options)
{
	static const struct {
		uint64_t size;
		uint64_t timeout, timeout_udp; /* seconds */
	} defaults[] = {
		[ACTIVITY_TALK] = { 1200, 30, 2 }, /* a datagram of that size passes on every path */
		[ACTIVITY_PING] = { 56, 2, 2 },
		[ACTIVITY_LOAD] = { 64, 10, 1 },
	};
	uint64_t timeout = options->udp ? defaults[options->activity].timeout_udp
					: defaults[options->activity].timeout;

	if (options->size == 0)
		options->size = options->mode == LOAD_STREAM ? 65536 : defaults[options->activity].size;
	if (options->depth == 0 && options->mode != LOAD_STREAM && !(options->udp && options->rate > 0))
		options->depth = 1;
	options->sockopts.timeout = options->timeout != 0 ? options->timeout : 10 * NSEC_PER_SEC;
	if (options->timeout == 0)
		options->timeout = timeout * NSEC_PER_SEC;
	if (options->report == 0 && options->json_stream)
		options->report = NSEC_PER_SEC;
}

static bool operands_parse(struct client_options *options, int argc, char *argv[])
{
	if (optind == argc || argv[optind][0] == '\0') {
		client_error(OUTCOME_USAGE, "no HOST given (see echoc --help)");
		return false;
	}
	if (argc - optind > 2) {
		client_error(OUTCOME_USAGE,
			     "\"%s\" is one operand too many: only HOST and PORT follow the options",
			     argv[optind + 2]);
		return false;
	}
	options->host = argv[optind];
	options->port = optind + 1 < argc ? argv[optind + 1] : NULL;
	return true;
}

/* --- parsing ------------------------------------------------------------------------------------------ */

/* getopt_long(3) returned `result` ('?' or ':') for the argument. */
static void error_invalid_option(int result, const char *argument)
{
	const struct option_row *row = optopt != 0 ? option_find(optopt) : NULL;
	const char *names[OPTION_COUNT + 1] = { NULL }, *near;

	for (size_t i = 0; i < OPTION_COUNT; i++)
		names[i] = option_rows[i].name;
	near = strncmp(argument, "--", 2) == 0 ? suggest_nearest(argument + 2, names) : NULL;
	if (row)
		client_error(OUTCOME_USAGE, "%s: it takes %s value", option_text(row),
			     result == ':' ? "a" : "no");
	else if (optopt != 0)
		client_error(OUTCOME_USAGE, "-%c: no such option (see echoc --help)", optopt);
	else if (near)
		client_error(OUTCOME_USAGE, "%s: no such option; did you mean --%s?", argument, near);
	else
		client_error(OUTCOME_USAGE, "%s: no such option, or not unique (see echoc --help)", argument);
}

bool client_options_parse(struct client_options *options, int argc, char *argv[], enum outcome *outcome)
{
	struct option longs[OPTION_COUNT + 1] = { 0 };
	char shorts[2 * OPTION_COUNT + 2] = ":";
	uint64_t given = 0;
	bool invalid = false;
	int key;

	_Static_assert(OPTION_COUNT <= 64, "`given` has a bit for each option");
	*options = (struct client_options) {
		.sockopts = { .type = SOCK_STREAM, .family = AF_UNSPEC, .tos = -1, .mtu_discovery = -1 },
		.interval = NSEC_PER_SEC,
		.deadline = NSEC_NEVER,
		.flows = 1,
		.connections = 50,
		.threads = 1,
		.duration = 5 * NSEC_PER_SEC,
		.warmup = NSEC_PER_SEC,
	};
	*outcome = OUTCOME_USAGE;
	opterr = 0;
	for (size_t i = 0, n = 1; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		bool flag = row->kind == KIND_OTHER || row->kind == KIND_FLAG;

		longs[i] = (struct option) { row->name, flag ? no_argument : required_argument, NULL,
					     row->key };
		if (row->key < 256)
			shorts[n++] = (char) row->key;
		if (row->key < 256 && !flag)
			shorts[n++] = ':';
	}
	while ((key = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct option_row *row = option_find(key);

		if (!row && !invalid) {
			error_invalid_option(key, argv[optind - 1]);
			invalid = true;
		}
		/* After an error, only look whether and where to print it as a JSON object. */
		if (invalid) {
			options->json |= key == KEY_JSON || key == KEY_JSON_STREAM;
			options->json_stream |= key == KEY_JSON_STREAM;
			if (key == KEY_PING || key == KEY_LOAD)
				option_apply(options, key);
			continue;
		}
		if (key == 'h' || key == 'V') {
			if (key == 'h')
				fputs(help, stdout);
			else
				version_print();
			*outcome = OUTCOME_OK;
			return false;
		}
		given |= UINT64_C(1) << (row - option_rows);
		invalid = !value_parse(options, row, optarg);
		option_apply(options, key);
	}
	if (invalid || !operands_parse(options, argc, argv) || !activities_check(options, given)
	    || !options_check(options))
		return false;
	options_default(options);
	return true;
}

const char *options_mode_name(enum load_mode mode)
{
	return mode_names[mode];
}
