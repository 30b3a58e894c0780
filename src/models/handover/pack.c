/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/handover/pack.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/memfile.h"
#include "echo/state.h"
#include "models/fault.h"
#include "models/handover/handover.h"

void pack_init(struct pack *pack)
{
	*pack = (struct pack) { .file = -1 };
	list_init(&pack->link);
}

void pack_clear(struct pack *pack)
{
	for (unsigned i = pack->next; i < pack->count; i++)
		close(pack->fds[i]);
	if (pack->file >= 0)
		close(pack->file);
	pack->count = pack->next = 0;
	pack->file = -1;
	pack->at = pack->size = 0;
	pack->sealed = false;
}

unsigned pack_left(const struct pack *pack)
{
	return pack->count - pack->next;
}

/* --- writing --------------------------------------------------------------------------- */

static int file_open(struct pack *pack)
{
	int fault = (int) fault_number("ECHOD_FAULT_MEMFILE", 0);

	pack->file = fault ? -fault : memfile_create("echod-connections");
	if (pack->file < 0) {
		int r = pack->file;

		pack->file = -1;
		return r;
	}
	pack->at = sizeof(struct pack_header);
	return 0;
}

int pack_add(struct pack *pack, struct new_conn *new_conn)
{
	struct state state;
	const uint8_t *data;
	size_t owed = conn_pending(&new_conn->conn, &data);
	int r = pack->file < 0 ? file_open(pack) : 0;

	if (r < 0)
		return r;
	state_encode(&state, &new_conn->conn, &new_conn->peer, &new_conn->proxied, new_conn->active,
	             new_conn->unadmitted ? STATE_UNADMITTED : 0);
	r = memfile_write(pack->file, &state, sizeof state, pack->at);
	if (r == 0)
		r = memfile_write(pack->file, data, owed, pack->at + (int64_t) sizeof state);
	if (r < 0)
		return r;
	pack->at += (int64_t) (sizeof state + owed);
	pack->fds[pack->count++] = new_conn->fd;
	conn_clear(&new_conn->conn);
	return 0;
}

int pack_seal(struct pack *pack)
{
	struct pack_header header = {
		.magic = PACK_MAGIC,
		.version = PACK_VERSION,
		.size = sizeof header,
		.count = pack->count,
	};
	int r;

	if (pack->sealed)
		return 0;
	pack->sealed = true;
	pack->size = pack->at;
	pack->at = sizeof header;
	r = memfile_write(pack->file, &header, sizeof header, 0);
	return r < 0 ? r : memfile_seal(pack->file);
}

int pack_send(struct pack *pack, int queue)
{
	static const char message[PACK_MAX];
	int fds[PACK_MAX + 1], r = pack_seal(pack);

	if (r < 0)
		return r;
	fds[0] = pack->file;
	memcpy(fds + 1, pack->fds, pack->count * sizeof *fds);
	r = fdpass_send(queue, message, pack->count, fds, pack->count + 1);
	if (r == 0)
		pack_clear(pack);
	return r;
}

/* --- reading --------------------------------------------------------------------------- */

static int header_check(struct pack *pack)
{
	struct pack_header header;
	int r;

	pack->size = memfile_size(pack->file);
	r = pack->size < 0 ? (int) pack->size : memfile_read(pack->file, &header, sizeof header, 0);
	if (r < 0)
		return r;
	if (header.magic != PACK_MAGIC)
		return -EBADMSG;
	if (header.version != PACK_VERSION)
		return -ENOTSUP;
	if (header.size < sizeof header || header.count != pack->count)
		return -EBADMSG;
	pack->at = header.size;
	return 0;
}

int pack_receive(struct pack *pack, int queue)
{
	int fds[PACK_MAX + 1], r;
	char message[PACK_MAX];
	unsigned count;
	ssize_t n = fdpass_receive(queue, message, sizeof message, fds, PACK_MAX + 1, &count);

	if (n == -EBADMSG || n == -EMFILE)
		return (int) n;
	if (n < 0 || (n == 0 && count == 0))
		return 0;
	if (count > 0) {
		pack->file = fds[0];
		pack->count = count - 1;
		memcpy(pack->fds, fds + 1, pack->count * sizeof *fds);
	}
	pack->sealed = true;
	r = count > 1 && (size_t) n == pack->count ? header_check(pack) : -EBADMSG;
	if (r == 0)
		return (int) pack->count;
	pack_clear(pack);
	return r;
}

int pack_next(struct pack *pack, struct new_conn *new_conn)
{
	uint8_t record[STATE_SIZE_MAX];
	int64_t left = pack->size - pack->at;
	struct state state = { 0 };
	int size, r;

	if (pack_left(pack) == 0)
		return 0;
	left = left < 0 ? 0 : left;
	r = memfile_read(pack->file, record, left < STATE_SIZE_MAX ? (size_t) left : STATE_SIZE_MAX,
	                 pack->at);
	size = r < 0 ? r : state_size(record, left < STATE_SIZE_MAX ? (size_t) left : STATE_SIZE_MAX);
	if (size > 0)
		memcpy(&state, record, STATE_SIZE_MIN);
	if (size > 0 && state.owed > left - size)
		size = -EBADMSG;
	if (size < 0) {
		pack_clear(pack);
		return size;
	}
	r = handover_read(record, (size_t) size, pack->fds[pack->next], pack->file, pack->at + size,
	                  new_conn);
	if (r < 0)
		close(pack->fds[pack->next]);
	pack->next++;
	pack->at += size + (int64_t) state.owed;
	return r < 0 ? r : 1;
}

unsigned pack_waiting(int queue)
{
	int all = 0;

	return ioctl(queue, FIONREAD, &all) < 0 || all < 0 ? 0 : (unsigned) all;
}
