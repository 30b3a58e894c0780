/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "conf/reader.h"
#include "conf/schema.h"
#include "conf/value.h"

/* Maximum size of the file in bytes. */
#define FILE_MAX (1024 * 1024)

/* A setting after the last line. libconfuse does not report it if something before it, such as an unclosed
 * string, includes it: then the end of the file was not read. */
#define SENTINEL "end-of-file"
#define SENTINEL_LINE "\n" SENTINEL " = reached\n"

/* ---- errors ---- */

void conf_error_at(const struct conf *conf, enum conf_key key, struct diagnostics *diag, const char *format,
                   ...)
{
	const struct conf_origin *origin = &conf->origin[key];
	bool overridden = origin->source == CONF_FROM_COMMAND_LINE;
	va_list args;

	va_start(args, format);
	diag_vadd_at(diag, overridden ? "command line" : conf->path, overridden ? 0 : origin->line, format,
	             args);
	va_end(args);
}

/* ---- libconfuse ---- */

/* libconfuse passes no argument of the caller to its error function: one reader at a time. */
static struct reader *confuse_reader;

static void confuse_error(cfg_t *cfg, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

static void confuse_error(cfg_t *cfg, const char *format, va_list args)
{
	char *text;

	if (vasprintf(&text, format, args) < 0) {
		confuse_reader->diag->oom = true;
		return;
	}
	diag_add_at(confuse_reader->diag, confuse_reader->name, (unsigned) cfg->line, "libconfuse: %s", text);
	free(text);
}

/* For libconfuse every value is a string: its own number parser reads "010" as 8 and "" as 0, and has no
 * range. */
static cfg_t *make_schema(void)
{
	cfg_opt_t options[CONF_KEYS + 2];
	char initial[CONF_KEYS][16]; /* libconfuse takes no const strings; it copies them */

	for (int i = 0; i < CONF_KEYS; i++) {
		const struct schema *s = &schema[i];

		snprintf(initial[i], sizeof initial[i], "%s", s->initial);
		if (schema_is_list((enum conf_key) i))
			options[i] = (cfg_opt_t) CFG_STR_LIST(s->name, initial[i], CFGF_NONE);
		else
			options[i] = (cfg_opt_t) CFG_STR(s->name, s->initial, CFGF_NONE);
	}
	options[CONF_KEYS] = (cfg_opt_t) CFG_STR(SENTINEL, "missed", CFGF_NONE);
	options[CONF_KEYS + 1] = (cfg_opt_t) CFG_END();
	return cfg_init(options, CFGF_NONE);
}

/* Parse `text`, in which syntax_check() has found no error that is still there. Returns 0; -EINVAL after
 * adding the error that libconfuse found nevertheless; or -ENOMEM. There are values only if 0 is returned. */
static int parse(struct reader *reader, const char *text)
{
	size_t before = reader->diag->count;
	int r;

	reader->cfg = make_schema();
	if (!reader->cfg)
		return -ENOMEM;
	cfg_set_error_function(reader->cfg, confuse_error);
	confuse_reader = reader;
	errno = 0; /* libconfuse sets it only if it fails */
	r = cfg_parse_buf(reader->cfg, text);
	confuse_reader = NULL;

	if (r == CFG_SUCCESS && strcmp(cfg_getstr(reader->cfg, SENTINEL), "reached") == 0)
		return 0;
	if (errno == ENOMEM || reader->diag->oom)
		return -ENOMEM;
	if (reader->diag->count == before)
		diag_add_at(reader->diag, reader->name, 0, "libconfuse: the file cannot be read to its end");
	return -EINVAL;
}

/* ---- the whole file ---- */

/* Replace the value of `key` by that of the command line, if there is one. Values of the command line are
 * valid (options.c). */
static void apply_override(struct reader *reader, enum conf_key key, const struct conf_overrides *overrides)
{
	struct conf *conf = reader->conf;
	char why[SCHEMA_WHY_MAX];

	if (key == CONF_MODEL && overrides->model) {
		free(conf->model);
		conf->model = strdup(overrides->model);
		if (!conf->model)
			reader->diag->oom = true;
	} else if (key == CONF_LOG_LEVEL && overrides->log_level) {
		conf->log_level = LOG_ERR +
		                  schema_choice(overrides->log_level, conf_log_level_names, "", why);
	} else if (key == CONF_WORKERS && overrides->workers >= 0) {
		conf->workers = (unsigned) overrides->workers;
	} else if (key == CONF_PORT && overrides->port >= 0) {
		conf->port = (uint16_t) overrides->port;
	} else {
		return;
	}
	conf->origin[key] = (struct conf_origin) { .source = CONF_FROM_COMMAND_LINE };
}

/* In the order of the table: `listen` needs `port`. */
static void read_values(struct reader *reader, const struct conf_overrides *overrides)
{
	for (enum conf_key key = 0; key < CONF_KEYS; key++) {
		unsigned line = reader->keys[key].line;

		reader->conf->origin[key] = (struct conf_origin) {
			.source = line > 0 ? CONF_FROM_FILE : CONF_FROM_DEFAULT, .line = line
		};
		value_read(reader, key);
		apply_override(reader, key, overrides);
	}
}

/* Copy the text, with space for the sentinel after it. Returns NULL after adding an error if it is not plain
 * text. */
static char *copy_text(struct reader *reader, const char *text, size_t length)
{
	const char *nul = memchr(text, '\0', length);
	char *copy;

	if (length > FILE_MAX) {
		diag_add_at(reader->diag, reader->name, 0, "longer than %d bytes; is it an echod.conf?",
		            FILE_MAX);
		return NULL;
	}
	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		diag_add_at(reader->diag, reader->name, 1,
		            "begins with a byte-order mark; save the file as UTF-8 without one");
		return NULL;
	}
	if (length >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0)) {
		diag_add_at(reader->diag, reader->name, 1,
		            "begins with the byte-order mark of UTF-16; save the file as UTF-8 without one");
		return NULL;
	}
	if (nul) {
		unsigned line = 1;

		for (const char *at = text; at < nul; at++)
			line += *at == '\n';
		diag_add_at(reader->diag, reader->name, line, "a NUL byte; the file must be plain text");
		return NULL;
	}
	copy = calloc(1, length + sizeof SENTINEL_LINE);
	if (copy)
		memcpy(copy, text, length);
	else
		reader->diag->oom = true;
	return copy;
}

/* Whether the keys that conf_check functions combine are valid. */
static bool can_be_combined(const struct reader *reader)
{
	static const enum conf_key combined[] = { CONF_MODEL, CONF_WORKERS, CONF_LISTEN,
		                                  CONF_MAX_CONNECTIONS };

	for (size_t i = 0; i < sizeof combined / sizeof combined[0]; i++)
		if (reader->keys[combined[i]].invalid)
			return false;
	return true;
}

/* Read the copy of the text. Returns 0, or -errno with errors in reader->diag. */
static int read_copy(struct reader *reader, char *copy, size_t length, const struct conf_overrides *overrides)
{
	int r;

	syntax_check(copy, length, reader->keys, reader->name, reader->diag);
	memcpy(copy + length, SENTINEL_LINE, sizeof SENTINEL_LINE);
	r = parse(reader, copy);
	if (r == 0)
		read_values(reader, overrides);
	return r;
}

int conf_read_text(struct conf **conf, const char *name, const char *text, size_t length,
                   const struct conf_overrides *overrides, const char *const models[], conf_check *check,
                   struct diagnostics *diag)
{
	struct reader reader = { .name = name, .models = models, .diag = diag, .first = diag->count };
	char *copy = NULL;
	int r = -ENOMEM;
	bool complete;

	*conf = NULL;
	reader.conf = calloc(1, sizeof *reader.conf);
	if (reader.conf)
		reader.conf->path = strdup(name);
	if (reader.conf && reader.conf->path) {
		copy = copy_text(&reader, text, length);
		r = copy ? read_copy(&reader, copy, length, overrides) : -EINVAL;
	}
	complete = r == 0 && !diag->oom && can_be_combined(&reader);
	if (diag->oom)
		r = -ENOMEM;
	else if (r == 0 && diag->count > reader.first)
		r = -EINVAL;
	diag_sort(diag, reader.first, name);
	if (r == -ENOMEM)
		diag_add(diag, "%s: not enough memory to read it", name);
	if (complete && check && check(reader.conf, diag) < 0)
		r = -EINVAL;
	if (r == 0)
		*conf = reader.conf;
	else
		conf_free(reader.conf);
	if (reader.cfg)
		cfg_free(reader.cfg);
	free(copy);
	return r;
}

/* Read `fd` to its end, at most `size` bytes. Returns the number of bytes or -errno. */
static ssize_t read_all(int fd, char *text, size_t size)
{
	size_t used = 0;

	while (used < size) {
		ssize_t n = read(fd, text + used, size - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t) n;
	}
	return (ssize_t) used;
}

int conf_read(struct conf **conf, const char *path, const struct conf_overrides *overrides,
              const char *const models[], conf_check *check, struct diagnostics *diag)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char *text = NULL;
	ssize_t n;
	int r;

	*conf = NULL;
	if (fd < 0) {
		r = -errno;
		diag_add(diag, "%s: cannot be opened: %s; name the file with --config", path, strerror(-r));
		return r;
	}
	text = malloc(FILE_MAX + 1);
	n = text ? read_all(fd, text, FILE_MAX + 1) : -ENOMEM;
	close(fd);
	if (n < 0) {
		r = (int) n;
		diag_add(diag, "%s: cannot be read: %s; it must be a file of text", path, strerror(-r));
	} else {
		r = conf_read_text(conf, path, text, (size_t) n, overrides, models, check, diag);
	}
	free(text);
	return r;
}

void conf_dump(const struct conf *conf, FILE *out)
{
	for (enum conf_key key = 0; key < CONF_KEYS; key++) {
		fprintf(out, "%s = ", schema[key].name);
		value_dump(conf, key, out);
		fputc('\n', out);
	}
}

/* The value as text for free(); NULL if there is no memory. */
static char *value_text(const struct conf *conf, enum conf_key key)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	value_dump(conf, key, out);
	fclose(out);
	return text;
}

bool conf_needs_restart(const struct conf *old, const struct conf *new, enum conf_key key)
{
	char *before, *after;
	bool differs;

	if (!schema[key].restart)
		return false;
	before = value_text(old, key);
	after = value_text(new, key);
	differs = before && after && strcmp(before, after) != 0;
	free(before);
	free(after);
	return differs;
}

void conf_free(struct conf *conf)
{
	if (!conf)
		return;
	for (enum conf_key key = 0; key < CONF_KEYS; key++)
		value_clear(conf, key);
	free(conf->path);
	free(conf);
}
