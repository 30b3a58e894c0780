/* SPDX-License-Identifier: ISC */
/* fuzz_fdnames.c - descriptors of the service manager with any names, LISTEN_FDNAMES
 *
 * The input is the number of descriptors, the kind of each, and the names as the environment variable has
 * them. Every descriptor is either taken or closed, queues are in the order of their numbers, and messages
 * have printable characters only.
 */
#include <config.h>

#include "fuzz.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/fdstore.h"

#define DESCRIPTORS_MAX 8

enum kind { KIND_TCP, KIND_TCP_NOT_LISTENING, KIND_UDP, KIND_QUEUE, KIND_UNIX, KIND_PIPE, KINDS };

static int make_inet(int type, bool listening)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *) &addr, sizeof addr) < 0 ||
	    (listening && listen(fd, 1) < 0))
		abort();
	return fd;
}

static int make_pair(int type)
{
	int ends[2];

	if (type < 0 ? pipe2(ends, O_CLOEXEC) < 0 : socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0)
		abort();
	close(ends[1]);
	return ends[0];
}

static int make(enum kind kind)
{
	switch (kind) {
	case KIND_TCP: return make_inet(SOCK_STREAM, true);
	case KIND_TCP_NOT_LISTENING: return make_inet(SOCK_STREAM, false);
	case KIND_UDP: return make_inet(SOCK_DGRAM, false);
	case KIND_QUEUE: return make_pair(SOCK_SEQPACKET);
	case KIND_UNIX: return make_pair(SOCK_STREAM);
	default: return make_pair(-1);
	}
}

/* Put the descriptors where the service manager puts them. Descriptors that the process was started with, and
 * that have these numbers, are closed. */
static unsigned pass(struct fuzz_input *input)
{
	unsigned count = fuzz_take(input) % (DESCRIPTORS_MAX + 1);
	char text[32];

	for (unsigned i = 0; i < count; i++) {
		int fd = make((enum kind) (fuzz_take(input) % KINDS)), high = fcntl(fd, F_DUPFD_CLOEXEC, 100);

		if (high < 0)
			abort();
		close(fd);
		if (dup2(high, SD_LISTEN_FDS_START + (int) i) < 0)
			abort();
		close(high);
	}
	snprintf(text, sizeof text, "%d", (int) getpid());
	setenv("LISTEN_PID", text, 1);
	snprintf(text, sizeof text, "%u", count);
	setenv("LISTEN_FDS", text, 1);
	return count;
}

static void claim_descriptors(const struct fdstore *store, unsigned count)
{
	int taken[DESCRIPTORS_MAX];
	unsigned n = fdstore_descriptors(store, taken, DESCRIPTORS_MAX);

	for (unsigned i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + (int) i;
		bool found = false;

		for (unsigned k = 0; k < n; k++)
			found |= taken[k] == fd;
		FUZZ_CLAIM(found == (fcntl(fd, F_GETFD) >= 0));
	}
	for (unsigned i = 1; i < store->queues.count; i++)
		FUZZ_CLAIM(store->queues.items[i - 1].number <= store->queues.items[i].number);
}

static void claim_messages(const struct diagnostics *errors)
{
	for (size_t i = 0; i < errors->count; i++)
		for (const char *at = errors->items[i].text; *at; at++)
			FUZZ_CLAIM((unsigned char) *at >= ' ' && *at != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	struct diagnostics errors = { 0 };
	unsigned count = pass(&input);
	struct fdstore store;
	char *names = malloc(input.size + 1);

	if (!names)
		abort();
	memcpy(names, input.data, input.size);
	names[input.size] = '\0';
	setenv("LISTEN_FDNAMES", names, 1);
	if (fdstore_collect(&store, &errors) == 0)
		claim_descriptors(&store, count);
	claim_messages(&errors);
	for (unsigned i = 0; i < count; i++)
		close(SD_LISTEN_FDS_START + (int) i);
	free(store.kept.items);
	free(store.activated.items);
	diag_clear(&errors);
	free(names);
	return 0;
}
