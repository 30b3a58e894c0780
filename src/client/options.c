/* options.c - see options.h */
#include <config.h>

#include "client/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/names.h"
#include "client/numbers.h"
#include "client/nsec.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#define TALK (1u << ACTIVITY_TALK)
#define PING (1u << ACTIVITY_PING)
#define LOAD (1u << ACTIVITY_LOAD)
#define ALL (TALK | PING | LOAD)

#define SIZE_MOST (UINT64_C(64) << 20)
#define TIME_MOST (1000.0 * 24 * 3600)
#define UDP_PAYLOAD_MOST 65507 /* 65535 less the IPv4 and UDP headers */

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
	KEY_RECONNECT,
	KEY_SOURCE,
};

/* Every option, once: how it is written, and which activities it means something to. */
static const struct option_row {
	const char *name;
	int key;
	int argument;
	unsigned activities;
} option_rows[] = {
	{ "ping", KEY_PING, no_argument, ALL },
	{ "load", KEY_LOAD, no_argument, ALL },
	{ "ipv4", '4', no_argument, ALL },
	{ "ipv6", '6', no_argument, ALL },
	{ "udp", 'u', no_argument, ALL },
	{ "size", 's', required_argument, ALL },
	{ "timeout", 'W', required_argument, ALL },
	{ "source", KEY_SOURCE, required_argument, ALL },
	{ "interface", 'I', required_argument, ALL },
	{ "dscp", 'Q', required_argument, ALL },
	{ "quiet", 'q', no_argument, ALL },
	{ "json", KEY_JSON, no_argument, PING | LOAD },
	{ "count", 'c', required_argument, PING },
	{ "interval", 'i', required_argument, PING },
	{ "deadline", 'w', required_argument, PING },
	{ "reconnect", KEY_RECONNECT, no_argument, PING },
	{ "mode", KEY_MODE, required_argument, LOAD },
	{ "connections", 'n', required_argument, LOAD },
	{ "depth", 'P', required_argument, LOAD },
	{ "duration", 'd', required_argument, LOAD },
	{ "threads", 'j', required_argument, LOAD },
	{ "rate", KEY_RATE, required_argument, LOAD },
	{ "warmup", KEY_WARMUP, required_argument, LOAD },
	{ "ramp", KEY_RAMP, required_argument, LOAD },
	{ "idle", KEY_IDLE, required_argument, LOAD },
	{ "engine", KEY_ENGINE, required_argument, LOAD },
	{ "plot", KEY_PLOT, required_argument, LOAD },
	{ "help", 'h', no_argument, ALL },
	{ "version", 'V', no_argument, ALL },
};

#define OPTION_COUNT (sizeof option_rows / sizeof option_rows[0])

static const char *const activity_names[] = { "talking", "--ping", "--load" };
static const char *const mode_names[] = { "rr", "stream", "connect", NULL };
static const char *const engine_names[] = { "auto", "epoll", "io_uring", NULL };

static const char help[] = "Usage: echoc [options] HOST [PORT]         talk, or echo stdin to stdout\n"
			   "       echoc --ping [options] HOST [PORT]  round-trip times\n"
			   "       echoc --load [options] HOST [PORT]  how fast the server is\n"
			   "HOST is a name, an address or unix:PATH; PORT is 7 unless given.\n"
			   "  -4, -6  -u, --udp     only IPv4, only IPv6; UDP instead of TCP\n"
			   "  -s SIZE  -W SECS      bytes a message; how long to wait (0: for ever)\n"
			   "  -I IFACE  -Q DSCP     interface to use; DSCP to mark with (46, EF, AF41)\n"
			   "  --source ADDRESS      address to send from\n"
			   "  -q  --json  -V  -h    less said; a JSON object; version; this help\n"
			   "Ping:\n"
			   "  -c COUNT  -i SECS     probes, and the time between two (0: at once)\n"
			   "  -w SECS  --reconnect  end after SECS; a new connection for each probe\n"
			   "Load:\n"
			   "  --mode rr|stream|connect   answer by answer, bulk, a connection a message\n"
			   "  -n CONNS  --idle CONNS     connections at work; others only held open\n"
			   "  -P DEPTH  -j THREADS       messages in flight on each; threads\n"
			   "  -d SECS  --warmup SECS     how long to measure, and before that not to\n"
			   "  --rate N  --ramp SECS      N messages/s in all; bring in bit by bit\n"
			   "  --engine epoll|io_uring    how to drive them\n"
			   "  --plot FILE.svg            draw the latencies (needs gnuplot)\n"
			   "Exit status: 0 every byte matched, 1 lost or different, 2 no connection,\n"
			   "64 usage. Times are seconds, or 250ms, 5m. See echoc(1).\n";

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

/* "--size" or, where it has one, "-s/--size". */
static const char *option_text(const struct option_row *row)
{
	static char text[40];

	if (row->key < 256)
		snprintf(text, sizeof text, "-%c/--%s", row->key, row->name);
	else
		snprintf(text, sizeof text, "--%s", row->name);
	return text;
}

static int error_print(const struct option_row *row, const char *given, const char *right)
{
	fprintf(stderr, "echoc: %s: \"%s\" will not do: %s\n", option_text(row), given, right);
	return OUTCOME_USAGE;
}

static int parse_size(const struct option_row *row, const char *given, uint64_t most, uint64_t *value)
{
	char right[96];

	if (number_parse_size(given, 1, most, value) == 0)
		return -1;
	snprintf(right, sizeof right, "it takes 1 to %llu bytes, with K or M behind it if you like",
		 (unsigned long long) most);
	return error_print(row, given, right);
}

static int parse_count(const struct option_row *row, const char *given, uint64_t min, uint64_t max,
		       uint64_t *value)
{
	char right[80];

	if (number_parse(given, min, max, value) == 0)
		return -1;
	snprintf(right, sizeof right, "it takes a whole number from %llu to %llu", (unsigned long long) min,
		 (unsigned long long) max);
	return error_print(row, given, right);
}

static int parse_unsigned(const struct option_row *row, const char *given, unsigned min, unsigned max,
			  unsigned *value)
{
	uint64_t wide = 0;
	int r = parse_count(row, given, min, max, &wide);

	if (r < 0)
		*value = (unsigned) wide;
	return r;
}

static int parse_time(const struct option_row *row, const char *given, double min, uint64_t *ticks)
{
	char right[96];

	if (number_parse_time(given, min, TIME_MOST, ticks) == 0)
		return -1;
	snprintf(right, sizeof right, "it takes a time from %g to %.0f seconds, as in 2, 0.5, 250ms or 5m",
		 min, TIME_MOST);
	return error_print(row, given, right);
}

static int parse_name(const struct option_row *row, const char *given, const char *const names[])
{
	char list[64], right[128];
	const char *near;

	for (int i = 0; names[i]; i++)
		if (strcmp(given, names[i]) == 0)
			return i;
	near = names_nearest(given, names);
	snprintf(right, sizeof right, "it is one of %s%s%s%s", names_join(list, sizeof list, names),
		 near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	error_print(row, given, right);
	return -1;
}

static int parse_source(const struct option_row *row, const char *given, struct addr *source)
{
	const char *why;
	struct addr other;

	/* Without a port, and so whatever the default was. */
	if (addr_parse(source, given, 1, &why) < 0 || addr_parse(&other, given, 2, &why) < 0
	    || source->sa.sa_family == AF_UNIX || addr_port(source) == addr_port(&other)) {
		source->len = 0;
		return error_print(row, given,
				   "it takes an IPv4 or IPv6 address of this host, without a port");
	}
	if (source->sa.sa_family == AF_INET)
		source->in.sin_port = 0;
	else
		source->in6.sin6_port = 0;
	return -1;
}

/* One option with a mode's name as its value. Returns -1 or the exit status. */
static int parse_choice(const struct option_row *row, const char *given, const char *const names[],
			unsigned *choice)
{
	int r = parse_name(row, given, names);

	if (r < 0)
		return OUTCOME_USAGE;
	*choice = (unsigned) r;
	return -1;
}

static int parse_option(struct client_options *options, const struct option_row *row, const char *given)
{
	unsigned choice = 0;
	int r = -1;

	switch (row->key) {
	case '4':
		options->sockopts.family = AF_INET;
		break;
	case '6':
		options->sockopts.family = AF_INET6;
		break;
	case 'u':
		options->udp = true;
		options->sockopts.type = SOCK_DGRAM;
		break;
	case 's':
		return parse_size(row, given, SIZE_MOST, &options->size);
	case 'W':
		r = parse_time(row, given, 0, &options->timeout);
		if (r < 0 && options->timeout == 0)
			options->timeout = NSEC_NEVER;
		return r;
	case KEY_SOURCE:
		return parse_source(row, given, &options->sockopts.source);
	case 'I':
		options->sockopts.interface = given;
		break;
	case 'Q':
		if (number_parse_dscp(given, &options->sockopts.dscp) < 0)
			return error_print(
				row, given,
				"it takes 0 to 63 or a name: EF, VA, LE, CS0 to CS7, AF11 to AF43");
		break;
	case 'q':
		options->quiet = true;
		break;
	case KEY_JSON:
		options->json = true;
		break;
	case 'c':
		return parse_count(row, given, 1, UINT32_MAX, &options->count);
	case 'i':
		return parse_time(row, given, 0, &options->interval);
	case 'w':
		return parse_time(row, given, 0.001, &options->deadline);
	case KEY_RECONNECT:
		options->reconnect = true;
		break;
	case KEY_MODE:
		r = parse_choice(row, given, mode_names, &choice);
		options->mode = (enum load_mode) choice;
		return r;
	case KEY_ENGINE:
		r = parse_choice(row, given, engine_names, &choice);
		options->engine = (enum load_engine_choice) choice;
		return r;
	case 'n':
		return parse_unsigned(row, given, 1, 1000000, &options->connections);
	case KEY_IDLE:
		return parse_unsigned(row, given, 0, 1000000, &options->idle);
	case 'j':
		return parse_unsigned(row, given, 1, 1024, &options->threads);
	case 'P':
		return parse_unsigned(row, given, 1, 65536, &options->depth);
	case 'd':
		return parse_time(row, given, 0.01, &options->duration);
	case KEY_WARMUP:
		return parse_time(row, given, 0, &options->warmup);
	case KEY_RAMP:
		return parse_time(row, given, 0, &options->ramp);
	case KEY_RATE:
		return parse_count(row, given, 1, 1000000000, &options->rate);
	case KEY_PLOT:
		options->plot = given;
		break;
	}
	return r;
}

/* What can only be judged with all options known. */
static int options_check(struct client_options *options, unsigned given)
{
	const char *wrong = NULL;

	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if ((given & (1u << i)) != 0
		    && (option_rows[i].activities & (1u << options->activity)) == 0) {
			fprintf(stderr, "echoc: %s is for %s, not for %s\n", option_text(&option_rows[i]),
				option_rows[i].activities == PING   ? "--ping"
				: option_rows[i].activities == LOAD ? "--load"
								    : "--ping and --load",
				activity_names[options->activity]);
			return OUTCOME_USAGE;
		}
	}
	if (options->udp && options->size > UDP_PAYLOAD_MOST)
		wrong = "-s/--size: a UDP datagram holds at most 65507 bytes";
	else if (options->udp && options->activity == ACTIVITY_PING && options->size > 0 && options->size < 4)
		wrong = "-s/--size: a UDP probe needs 4 bytes or more, because it carries its number";
	else if (options->udp && options->activity == ACTIVITY_LOAD && options->size > 0 && options->size < 8)
		wrong = "-s/--size: a UDP message needs 8 bytes or more, because it carries its number";
	else if (options->udp && options->reconnect)
		wrong = "--reconnect is for TCP: UDP has no connections";
	else if (options->udp && options->mode != LOAD_RR)
		wrong = "--mode: UDP has no streams and no connections, only rr can be used with -u";
	else if (options->udp && options->engine == ENGINE_URING)
		wrong = "--engine: UDP is driven by epoll (recvmmsg and sendmmsg) only";
	else if (options->udp && options->idle > 0)
		wrong = "--idle is for TCP: UDP has no connections to hold open";
	else if (options->rate > 0 && options->mode == LOAD_STREAM)
		wrong = "--rate counts messages: use it with --mode rr or connect";
	else if (options->depth > 1 && options->mode == LOAD_CONNECT)
		wrong = "-P/--depth: a connection carries one message in --mode connect";
	else if (options->mode == LOAD_CONNECT && options->size > 65536)
		wrong = "-s/--size: --mode connect sends at most 64K on a connection";
	else if (options->threads > options->connections)
		wrong = "-j/--threads: there are fewer connections (-n) than threads";
	if (!wrong)
		return -1;
	fprintf(stderr, "echoc: %s\n", wrong);
	return OUTCOME_USAGE;
}

static void options_default(struct client_options *options)
{
	if (options->size == 0) {
		if (options->activity == ACTIVITY_PING)
			options->size = 56;
		else if (options->activity == ACTIVITY_LOAD)
			options->size = options->mode == LOAD_STREAM ? 65536 : 64;
		else
			options->size = 1200; /* a datagram that passes everywhere */
	}
	if (options->activity == ACTIVITY_LOAD && options->depth == 0 && options->mode != LOAD_STREAM)
		options->depth = 1;
	options->sockopts.timeout = options->timeout != 0 ? options->timeout : 10 * NSEC_PER_SEC;
	if (options->timeout == 0) {
		if (options->activity == ACTIVITY_PING)
			options->timeout = 2 * NSEC_PER_SEC;
		else if (options->activity == ACTIVITY_LOAD)
			options->timeout = options->udp ? NSEC_PER_SEC : 10 * NSEC_PER_SEC;
		else
			options->timeout = options->udp ? 2 * NSEC_PER_SEC : 30 * NSEC_PER_SEC;
	}
}

static int parse_operands(struct client_options *options, int argc, char *argv[])
{
	if (optind == argc || argv[optind][0] == '\0') {
		fprintf(stderr, "echoc: whom to talk to? Give a HOST (see echoc --help)\n");
		return OUTCOME_USAGE;
	}
	if (argc - optind > 2) {
		fprintf(stderr, "echoc: \"%s\" is one word too many: only HOST and PORT follow the options\n",
			argv[optind + 2]);
		return OUTCOME_USAGE;
	}
	options->host = argv[optind];
	options->port = optind + 1 < argc ? argv[optind + 1] : NULL;
	return -1;
}

int client_options_parse(struct client_options *options, int argc, char *argv[])
{
	struct option longs[OPTION_COUNT + 1] = { 0 };
	char shorts[2 * OPTION_COUNT + 2] = "";
	unsigned given = 0;
	int key, r;

	_Static_assert(OPTION_COUNT < 32, "the set of options given has a bit for each");
	*options = (struct client_options){
		.sockopts = { .type = SOCK_STREAM, .family = AF_UNSPEC, .dscp = -1 },
		.interval = NSEC_PER_SEC,
		.deadline = NSEC_NEVER,
		.connections = 50,
		.threads = 1,
		.duration = 5 * NSEC_PER_SEC,
		.warmup = NSEC_PER_SEC,
	};
	for (size_t i = 0, n = 0; i < OPTION_COUNT; i++) {
		longs[i] = (struct option){ option_rows[i].name, option_rows[i].argument, NULL,
					    option_rows[i].key };
		if (option_rows[i].key < 256)
			shorts[n++] = (char) option_rows[i].key;
		if (option_rows[i].key < 256 && option_rows[i].argument == required_argument)
			shorts[n++] = ':';
	}
	while ((key = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct option_row *row = option_find(key);

		if (!row) {
			fprintf(stderr, "echoc: see echoc --help for what there is\n");
			return OUTCOME_USAGE;
		}
		if (key == 'h' || key == 'V') {
			if (key == 'h')
				fputs(help, stdout);
			else
				version_print();
			return OUTCOME_OK;
		}
		if (key == KEY_PING || key == KEY_LOAD) {
			enum activity activity = key == KEY_PING ? ACTIVITY_PING : ACTIVITY_LOAD;

			if (options->activity != ACTIVITY_TALK && options->activity != activity) {
				fprintf(stderr, "echoc: --ping or --load, not both\n");
				return OUTCOME_USAGE;
			}
			options->activity = activity;
			continue;
		}
		given |= 1u << (row - option_rows);
		r = parse_option(options, row, optarg);
		if (r >= 0)
			return r;
	}
	r = parse_operands(options, argc, argv);
	if (r < 0)
		r = options_check(options, given);
	if (r < 0)
		options_default(options);
	return r;
}

const char *options_mode_name(enum load_mode mode)
{
	return mode_names[mode];
}
