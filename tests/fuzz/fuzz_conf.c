/* SPDX-License-Identifier: ISC */
/* fuzz_conf.c - whole configuration files, through libconfuse
 *
 * Each file is either refused, with at least one error message, or accepted with every value in its
 * range. The dump of an accepted file is accepted, too, and its dump is the same. No descriptor may be
 * left open.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "conf/conf.h"
#include "models/model.h"

#define NAME "echod.conf"


/* Every error message is one printable line that begins with the name of the file. */
static void claim_messages(const struct diagnostics *errors)
{
	FUZZ_CLAIM(errors->count > 0);
	for (size_t i = 0; i < errors->count; i++) {
		FUZZ_CLAIM(strncmp(errors->items[i].text, NAME ":", strlen(NAME ":")) == 0);
		for (const char *c = errors->items[i].text; *c; c++)
			FUZZ_CLAIM((unsigned char) *c >= ' ' && *c != 0x7f);
	}
}

static void claim_ranges(const struct conf *conf)
{
	size_t i = 0;

	while (model_names[i] && strcmp(model_names[i], conf->model) != 0)
		i++;
	FUZZ_CLAIM(model_names[i]);
	FUZZ_CLAIM(conf->workers <= 100000);
	FUZZ_CLAIM(conf->port >= 1);
	FUZZ_CLAIM(conf->listen_count >= 1);
	FUZZ_CLAIM(conf->tcp || conf->udp);
	FUZZ_CLAIM(conf->backlog >= 1 && conf->backlog <= 65535);
	FUZZ_CLAIM(conf->max_connections <= 10000000 && conf->max_per_source <= 10000000);
	FUZZ_CLAIM(conf->idle_timeout <= 86400000 && conf->drain_timeout <= 86400);
	FUZZ_CLAIM(conf->buffer_size >= 512 && conf->buffer_size <= 16777216);
	FUZZ_CLAIM(conf->user && conf->group);
	FUZZ_CLAIM(*conf->pidfile == '\0' || *conf->pidfile == '/');
	FUZZ_CLAIM(*conf->metrics_file == '\0' || *conf->metrics_file == '/');
	FUZZ_CLAIM(conf->log_level >= LOG_ERR && conf->log_level <= LOG_DEBUG);
	FUZZ_CLAIM(conf->stats_interval <= 86400 && conf->udp_rate <= 1000000000);
}

/* Read `data` as a file. Returns its dump, `*dumped` bytes, for free(); NULL where it was refused. */
static char *try_file(const char *data, size_t size, size_t *dumped)
{
	static const struct conf_overrides none = CONF_OVERRIDES_NONE;
	struct diagnostics errors = { 0 };
	struct conf *conf = NULL;
	char *dump = NULL;
	int r = conf_read_text(&conf, NAME, data, size, &none, model_names, NULL, &errors);
	FILE *out;

	if (r < 0) {
		FUZZ_CLAIM(r == -EINVAL && !conf);
		claim_messages(&errors);
	} else {
		FUZZ_CLAIM(r == 0 && conf && errors.count == 0);
		claim_ranges(conf);
		out = open_memstream(&dump, dumped);
		if (!out)
			abort();
		conf_dump(conf, out);
		fclose(out);
	}
	conf_free(conf);
	diag_clear(&errors);
	return dump;
}

static int lowest_free(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		abort();
	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t dumped, again_dumped;
	int before = lowest_free();
	char *dump = try_file((const char *) data, size, &dumped), *again;

	if (dump) {
		again = try_file(dump, dumped, &again_dumped);
		FUZZ_CLAIM(again);
		FUZZ_CLAIM(again_dumped == dumped && memcmp(again, dump, dumped) == 0);
		free(again);
		free(dump);
	}
	FUZZ_CLAIM(lowest_free() == before);
	return 0;
}
