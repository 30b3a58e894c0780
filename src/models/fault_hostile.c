/* SPDX-License-Identifier: ISC */
/* fault_hostile.c - a worker that runs code of an attacker, for builds with fault points
 *
 * It does all the harm that memory and descriptors allow: it fills all writable shared memory with random
 * values, sends random messages, some with descriptors, to each of its pipes and sockets, and dies.
 */
#include <config.h>

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "models/fault.h"

#ifdef ECHOD_FAULTS

#define ROUNDS 4
#define MESSAGES 8
#define DESCRIPTORS 1024

static uint64_t random_word(uint64_t *state)
{
	/* xorshift64: Marsaglia 2003 */
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill(void *memory, size_t size, uint64_t *state)
{
	unsigned char *at = memory;

	for (size_t i = 0; i + sizeof *state <= size; i += sizeof *state) {
		uint64_t word = random_word(state);

		/* sometimes a small value, which looks plausible */
		if (word % 16 == 0)
			word = word >> 32 & 0xff;
		memcpy(at + i, &word, sizeof word);
	}
}

/* Overwrite every mapping that is shared and writable: proc_pid_maps(5). */
static void fill_shared_memory(uint64_t *state)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	while (maps && fgets(line, sizeof line, maps)) {
		uintptr_t from, to;
		char mode[5];

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, mode) == 3 && mode[1] == 'w' &&
		    mode[3] == 's')
			fill((void *) from, to - from, state);
	}
	if (maps)
		fclose(maps);
}

static void send_random(int fd, bool is_socket, uint64_t *state)
{
	static const char record[] = "PRIORITY=4\0MESSAGE=\n";
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char bytes[4096];
	struct iovec iov = { .iov_base = bytes, .iov_len = 1 + random_word(state) % sizeof bytes };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct pollfd room = { .fd = fd, .events = POLLOUT };

	fill(bytes, sizeof bytes, state);
	if (random_word(state) % 4 == 0)
		memcpy(bytes, record, sizeof record);
	if (!is_socket) {
		if (poll(&room, 1, 0) != 1 || write(fd, bytes, iov.iov_len) < 0)
			return;
		return;
	}
	if (random_word(state) % 2 == 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof control.bytes;
		control.align = (struct cmsghdr) { .cmsg_level = SOL_SOCKET,
			                           .cmsg_type = SCM_RIGHTS,
			                           .cmsg_len = CMSG_LEN(sizeof fd) };
		memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
	}
	(void) sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_to_all(uint64_t *state)
{
	for (int fd = 0; fd < DESCRIPTORS; fd++) {
		struct stat st;

		if (fstat(fd, &st) < 0 || !(S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode)))
			continue;
		for (int i = 0; i < MESSAGES; i++)
			send_random(fd, S_ISSOCK(st.st_mode), state);
	}
}

void fault_hostile(unsigned index)
{
	uint64_t state = (uint64_t) clock_usec() ^ (uint64_t) getpid() << 32;

	if (!fault_file("ECHOD_FAULT_HOSTILE", index))
		return;
	for (int i = 0; i < ROUNDS; i++) {
		fill_shared_memory(&state);
		send_to_all(&state);
	}
	kill(getpid(), SIGKILL);
}

#endif
