/* SPDX-License-Identifier: ISC */
/* fuzz_client_options.c - the command line of echoc, and the host it names
 *
 * The input is the arguments, separated by newlines. They are either refused, with an exit status and a
 * message, or accepted with every value in its range.
 */
#include <config.h>

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <unistd.h>

#include "client/nsec.h"
#include "client/options.h"

#define ARGUMENTS_MAX 32
#define DAYS_MAX 1000

/* Discard messages and the texts of --help and --version. */
static void silence(void)
{
	static bool done;
	int null;

	if (done)
		return;
	done = true;
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null < 0 || dup2(null, STDOUT_FILENO) < 0)
		abort();
	close(null);
	client_error_silence();
}

static void claim_time(uint64_t nsec, uint64_t never)
{
	FUZZ_CLAIM(nsec == never || nsec <= DAYS_MAX * UINT64_C(86400) * NSEC_PER_SEC);
}

static void claim_ranges(const struct client_options *options)
{
	const struct socket_options *sockopts = &options->sockopts;

	FUZZ_CLAIM(options->host && *options->host);
	FUZZ_CLAIM(options->size >= 1 && options->size <= 64 << 20);
	FUZZ_CLAIM(!options->udp || options->size <= 65507);
	FUZZ_CLAIM(sockopts->type == (options->udp ? SOCK_DGRAM : SOCK_STREAM));
	FUZZ_CLAIM(sockopts->tos >= -1 && sockopts->tos <= 255);
	FUZZ_CLAIM(sockopts->tos < 0 || options->udp || (sockopts->tos & 3) == 0);
	FUZZ_CLAIM(sockopts->mtu_discovery >= -1 && sockopts->mtu_discovery <= 2);
	FUZZ_CLAIM(sockopts->ttl <= 255);
	FUZZ_CLAIM(sockopts->source.len == 0 || addr_port(&sockopts->source) == 0);
	FUZZ_CLAIM(options->timeout > 0 && sockopts->timeout > 0);
	claim_time(options->timeout, NSEC_NEVER);
	claim_time(sockopts->timeout, NSEC_NEVER);
	claim_time(options->interval, 0);
	claim_time(options->deadline, NSEC_NEVER);
	claim_time(options->duration, 0);
	claim_time(options->warmup, 0);
	claim_time(options->ramp, 0);
	claim_time(options->report, 0);
	FUZZ_CLAIM(options->flows >= 1 && options->flows <= 256);
	FUZZ_CLAIM(options->connections >= 1 && options->connections <= 1000000 && options->idle <= 1000000);
	FUZZ_CLAIM(options->threads >= 1 && options->threads <= 1024
		   && options->threads <= options->connections);
	FUZZ_CLAIM(options->depth <= 65536 && options->rate <= 1000000000);
	FUZZ_CLAIM(options->json || !options->json_stream);
}

/* Check that target_split() gives the two halves of the host. */
static void claim_split(const char *host)
{
	const char *port = NULL;
	char *name = NULL;
	int r = target_split(host, &name, &port);

	FUZZ_CLAIM(r == 0 || r == -ENOENT || r == -EINVAL);
	if (r < 0)
		return;
	FUZZ_CLAIM(*name && *port && !strchr(name, ':') && !strchr(port, ':'));
	FUZZ_CLAIM(strlen(name) + 1 + strlen(port) == strlen(host));
	free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text, *word;
	char *arguments[ARGUMENTS_MAX + 2] = { (char[]) { "echoc" } };
	struct client_options options;
	enum outcome outcome;
	int count = 1;

	if (!text)
		abort();
	silence();
	memcpy(text, data, size);
	text[size] = '\0';
	while (count <= ARGUMENTS_MAX && (word = strsep(&rest, "\n")) != NULL)
		arguments[count++] = word;
	optind = 0; /* glibc: start again */
	if (client_options_parse(&options, count, arguments, &outcome)) {
		claim_ranges(&options);
		claim_split(options.host);
	} else {
		FUZZ_CLAIM(outcome == OUTCOME_USAGE || outcome == OUTCOME_OK);
		FUZZ_CLAIM(outcome == OUTCOME_OK || client_error_first());
	}
	free(text);
	return 0;
}
