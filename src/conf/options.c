/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "base/quote.h"
#include "base/suggest.h"
#include "conf/schema.h"

#define LIST_MODELS 256 /* has no short form */

/* the colon: getopt_long(3) prints no messages */
static const char short_options[] = ":nc:tTm:w:p:l:Vh";

static const struct option long_options[] = {
	{ "foreground", no_argument, NULL, 'n' },
	{ "config", required_argument, NULL, 'c' },
	{ "test", no_argument, NULL, 't' },
	{ "dump", no_argument, NULL, 'T' },
	{ "model", required_argument, NULL, 'm' },
	{ "workers", required_argument, NULL, 'w' },
	{ "port", required_argument, NULL, 'p' },
	{ "log-level", required_argument, NULL, 'l' },
	{ "list-models", no_argument, NULL, LIST_MODELS },
	{ "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

enum { LONG_OPTIONS = sizeof long_options / sizeof long_options[0] };

__attribute__((format(printf, 2, 3)))
static int usage_error(FILE *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("echod: ", err);
	vfprintf(err, format, args);
	fputs("\nTry \"echod --help\" for the options.\n", err);
	va_end(args);
	return -EINVAL;
}

static const char *option_name(int option)
{
	for (int i = 0; long_options[i].name; i++) {
		if (long_options[i].val == option)
			return long_options[i].name;
	}
	return "";
}

/* Report why getopt_long(3) returned "?" at `word`: an unknown option, an ambiguous one, or a value for an
 * option that takes none. */
static int bad_option(const char *word, FILE *err)
{
	const char *names[LONG_OPTIONS] = { NULL }, *nearest;
	char name[QUOTE_MAX], shown[QUOTE_MAX];

	if (strncmp(word, "--", 2) != 0) {
		char letter[2] = { (char) optopt, '\0' };

		return usage_error(err, "unknown option -%s", optopt > ' ' && optopt < 0x7f ? letter : "?");
	}
	if (optopt != 0)
		return usage_error(err, "--%s takes no value", option_name(optopt));
	for (int i = 0; long_options[i].name; i++)
		names[i] = long_options[i].name;
	snprintf(name, sizeof name, "%.*s", (int) strcspn(word + 2, "="), word + 2);
	nearest = suggest_nearest(name, names);
	return usage_error(err, "unknown or ambiguous option %s%s%s%s", quote_string(shown, word),
	                   nearest ? "; did you mean \"--" : "", nearest ? nearest : "",
	                   nearest ? "\"?" : "");
}

static int read_number(int64_t *value, enum conf_key key, FILE *err)
{
	char why[SCHEMA_WHY_MAX];

	if (schema_number(key, optarg, value, why) == 0)
		return 0;
	return usage_error(err, "--%s: %s", schema[key].name, why);
}

static int read_name(const char **name, enum conf_key key, const char *const names[], const char *noun,
                     FILE *err)
{
	char why[SCHEMA_WHY_MAX];

	*name = optarg;
	if (schema_choice(optarg, names, noun, why) >= 0)
		return 0;
	return usage_error(err, "--%s: %s", schema[key].name, why);
}

static int read_action(struct options *options, enum options_action action, FILE *err)
{
	if (options->action != OPTIONS_RUN && options->action != action)
		return usage_error(err, "only one of --test, --dump and --list-models can be given");
	options->action = action;
	return 0;
}

static int read_option(struct options *options, int option, const char *word, const char *const models[],
                       FILE *err)
{
	struct conf_overrides *overrides = &options->overrides;

	switch (option) {
	case 'n':
		options->foreground = true;
		return 0;
	case 'c':
		options->path = optarg;
		return *optarg ? 0 : usage_error(err, "--config: the name of a file is missing, not \"\"");
	case 't':
		return read_action(options, OPTIONS_TEST, err);
	case 'T':
		return read_action(options, OPTIONS_DUMP, err);
	case LIST_MODELS:
		return read_action(options, OPTIONS_LIST_MODELS, err);
	case 'm':
		return read_name(&overrides->model, CONF_MODEL, models, "model", err);
	case 'l':
		return read_name(&overrides->log_level, CONF_LOG_LEVEL, conf_log_level_names, "log level",
		                 err);
	case 'w':
		return read_number(&overrides->workers, CONF_WORKERS, err);
	case 'p':
		return read_number(&overrides->port, CONF_PORT, err);
	case ':':
		return usage_error(err, "--%s needs a value", option_name(optopt));
	default:
		return bad_option(word, err);
	}
}

int options_parse(struct options *options, int argc, char *argv[], const char *const models[], FILE *err)
{
	*options = (struct options) { .path = SYSCONFDIR "/echod.conf", .overrides = CONF_OVERRIDES_NONE };
	optind = 0; /* glibc: initialise again */
	for (;;) {
		/* for error messages; glibc sets optind to 1 in its first call */
		const char *word = argv[optind == 0 ? 1 : optind];
		int option = getopt_long(argc, argv, short_options, long_options, NULL), r;

		if (option == -1)
			break;
		if (option == 'V' || option == 'h') {
			/* as usual, options after these two are not read */
			options->action = option == 'V' ? OPTIONS_VERSION : OPTIONS_HELP;
			return 0;
		}
		r = read_option(options, option, word, models, err);
		if (r < 0)
			return r;
	}
	if (optind < argc) {
		char shown[QUOTE_MAX];

		return usage_error(err, "%s is one argument too many; echod takes options only",
		                   quote_string(shown, argv[optind]));
	}
	return 0;
}

void options_help(FILE *out)
{
	fputs("Usage: echod [-n] [-c FILE] [-m MODEL] [-w N] [-p PORT] [-l LEVEL]\n"
	      "       echod -t | -T [-c FILE] [-m MODEL] [-w N] [-p PORT] [-l LEVEL]\n"
	      "       echod --list-models | -V | -h\n"
	      "Send back whatever clients send: the Echo Protocol of RFC 862, TCP and UDP.\n"
	      "\n"
	      "  -c, --config FILE      read FILE instead of the one that the last line names\n"
	      "  -n, --foreground       stay in the foreground instead of becoming a daemon\n"
	      "  -t, --test             check the configuration, say what is wrong, exit\n"
	      "  -T, --dump             print the configuration in effect, every key, exit\n"
	      "\n"
	      "These win over the file, also after it was read again:\n"
	      "  -m, --model MODEL      how connections are served; see --list-models\n"
	      "  -w, --workers N        how many workers, 0 to 100000; 0: as the model likes\n"
	      "  -p, --port PORT        the port, 1 to 65535, of addresses that name none\n"
	      "  -l, --log-level LEVEL  err, warning, notice, info or debug\n"
	      "\n"
	      "      --list-models      list the models and whether they can run here, exit\n"
	      "  -V, --version          print the version and what it was built with, exit\n"
	      "  -h, --help             print this, exit\n"
	      "\n"
	      "See echod(8), echod.conf(5).\n"
	      "Configuration file: " SYSCONFDIR "/echod.conf\n",
	      out);
}
