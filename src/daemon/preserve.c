/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/preserve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "models/handover/handover.h"

/* Descriptors kept free for receiving one more message, and for files. */
#define FDS_SPARE 8

/* Pause before trying again where too many descriptors are in flight, because no event reports that they were
 * received. */
#define RETRY_USEC (10 * USEC_PER_MSEC)

/* Maximum number of connections that restore_take() takes. */
#define TAKE_BATCH 1024

/* --- at a stop ------------------------------------------------------------------------- */

void preserve_init(struct preserve *preserve, unsigned number, unsigned queues, struct stats_slot *slot)
{
	*preserve = (struct preserve) { .queue = -1, .number = number, .queues_left = queues, .slot = slot };
	list_init(&preserve->packs);
}

static struct pack *of_link(struct list *link)
{
	return LIST_ENTRY(link, struct pack, link);
}

static struct pack *pack_append(struct preserve *preserve)
{
	struct pack *pack = malloc(sizeof *pack);

	if (!pack)
		return NULL;
	pack_init(pack);
	list_append(&preserve->packs, &pack->link);
	return pack;
}

static void pack_remove(struct pack *pack)
{
	list_remove(&pack->link);
	pack_clear(pack);
	free(pack);
}

/* Make a queue and store its receiving end in the service manager. */
static int queue_open(struct preserve *preserve)
{
	int inbox, outbox, r;

	if (preserve->queues_left == 0)
		return -ENOSPC;
	r = handover_pair(&inbox, &outbox);
	if (r < 0)
		return r;
	r = fdstore_keep_queue(preserve->number, inbox);
	close(inbox);
	if (r < 0) {
		close(outbox);
		return r;
	}
	preserve->queues_left--;
	preserve->number++;
	if (preserve->queue >= 0)
		close(preserve->queue);
	preserve->queue = outbox;
	return 0;
}

static int pack_store(struct preserve *preserve, struct pack *pack)
{
	unsigned count = pack->count;
	int r = preserve->queue < 0 ? queue_open(preserve) : 0;

	if (r == 0)
		r = pack_send(pack, preserve->queue);
	if (r == -EAGAIN) {
		r = queue_open(preserve);
		if (r == 0)
			r = pack_send(pack, preserve->queue);
	}
	if (r == 0)
		preserve->kept += count;
	return r;
}

/* Send packs, in order: all, or all but the last one while it is not full. */
static int packs_store(struct preserve *preserve, bool all)
{
	int r = 0;

	while (r == 0 && !list_empty(&preserve->packs)) {
		struct pack *pack = of_link(preserve->packs.next);

		if (!all && pack->link.next == &preserve->packs && pack->count < PACK_MAX && !pack->sealed)
			return 0;
		if (pack->count > 0)
			r = pack_store(preserve, pack);
		if (r == 0) {
			pack_remove(pack);
			preserve->highest = 0;
		}
	}
	return r;
}

int preserve_add(struct preserve *preserve, struct new_conn *new_conn)
{
	struct pack *pack = list_empty(&preserve->packs) ? NULL : of_link(preserve->packs.prev);
	int r;

	if (!pack || pack->count == PACK_MAX || pack->sealed)
		pack = pack_append(preserve);
	if (!pack)
		return -ENOMEM;
	r = pack_add(pack, new_conn);
	if (r == 0 && pack->count == PACK_MAX)
		(void) packs_store(preserve, false); /* if that fails, it is tried again with the next pack */
	return r;
}

static bool is_quiet(const struct new_conn *new_conn)
{
	int unread = 0, unsent = 0;

	return conn_owed_total(&new_conn->conn) == 0 &&
	       (ioctl(new_conn->fd, FIONREAD, &unread) < 0 || unread <= 0) &&
	       (new_conn->peer.family == AF_UNIX || ioctl(new_conn->fd, SIOCOUTQ, &unsent) < 0 ||
	        unsent <= 0);
}

int preserve_or_flush(struct preserve *preserve, struct new_conn *new_conn)
{
	if (!preserve->flush || is_quiet(new_conn))
		return preserve_add(preserve, new_conn);
	drain_add(preserve->flush, new_conn);
	return 0;
}

/* Add a pack that was received and not read; `*pack` is empty afterwards. Returns 0 or -ENOMEM. */
static int preserve_add_pack(struct preserve *preserve, struct pack *pack)
{
	struct pack *copy = pack_append(preserve);

	if (!copy)
		return -ENOMEM;
	list_remove(&copy->link);
	*copy = *pack;
	list_append(&preserve->packs, &copy->link);
	pack_init(pack);
	(void) packs_store(preserve, false);
	return 0;
}

/* Whether this process can receive one more message. The kernel uses the lowest free descriptor. */
static bool has_descriptors(const struct preserve *preserve)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
	       (rlim_t) preserve->highest + FDS_SPARE < limit.rlim_cur;
}

int preserve_take(struct preserve *preserve, int inbox, unsigned max_count, struct new_conn *rest)
{
	rest->fd = -1;
	while (max_count-- > 0) {
		int r = handover_take(inbox, rest);

		if (r == -EAGAIN)
			return 0;
		if (r < 0) {
			stats_add(preserve->slot, STAT_DAMAGED, 1);
			rest->fd = -1;
			continue;
		}
		preserve->highest = rest->fd;
		r = preserve_or_flush(preserve, rest);
		if (r < 0)
			return r;
		rest->fd = -1;
		if (!has_descriptors(preserve))
			(void) packs_store(preserve, true);
		if (!has_descriptors(preserve))
			return -EMFILE;
	}
	return 1;
}

int preserve_check_flight(void)
{
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return 0;
	r = fdpass_send(ends[0], "", 1, ends, 1);
	close(ends[0]);
	close(ends[1]);
	return r == -ETOOMANYREFS ? r : 0;
}

int preserve_finish(struct preserve *preserve)
{
	return packs_store(preserve, true);
}

int preserve_one(struct preserve *preserve, struct new_conn *new_conn)
{
	int r = preserve_add(preserve, new_conn);

	if (r < 0)
		return r;
	r = packs_store(preserve, true);
	if (r == 0 || preserve_next(preserve, new_conn))
		return r;
	stats_add(preserve->slot, STAT_DAMAGED, 1);
	return 0;
}

bool preserve_next(struct preserve *preserve, struct new_conn *new_conn)
{
	while (!list_empty(&preserve->packs)) {
		struct pack *pack = of_link(preserve->packs.next);
		int r;

		(void) pack_seal(pack);
		r = pack_next(pack, new_conn);
		if (r > 0)
			return true;
		if (r == 0)
			pack_remove(pack);
	}
	return false;
}

void preserve_clear(struct preserve *preserve)
{
	while (!list_empty(&preserve->packs))
		pack_remove(of_link(preserve->packs.next));
	if (preserve->queue >= 0)
		close(preserve->queue);
	preserve->queue = -1;
}

/* --- at a start ------------------------------------------------------------------------ */

void restore_init(struct restore *restore, const struct fdstore_queues *queues, struct stats_slot *slot)
{
	*restore = (struct restore) { .queues = *queues, .retry_at = INT64_MAX, .slot = slot };
	pack_init(&restore->pack);
	preserve_init(&restore->overflow, 0, 0, slot);
}

/* Whether connections were received and are in memory, not in a queue of the store. */
static bool has_received(const struct restore *restore)
{
	return restore->has_new_conn || !list_empty(&restore->overflow.packs) ||
	       pack_left(&restore->pack) > 0;
}

bool restore_active(const struct restore *restore)
{
	return has_received(restore) || restore->at < restore->queues.count;
}

unsigned restore_waiting(const struct restore *restore)
{
	unsigned count = restore->has_new_conn + pack_left(&restore->pack);

	for (unsigned i = restore->at; i < restore->queues.count; i++)
		count += pack_waiting(restore->queues.items[i].fd);
	return count;
}

unsigned restore_queues(const struct restore *restore)
{
	return restore->queues.count - restore->at;
}

unsigned restore_free_number(const struct restore *restore)
{
	/* 0 again once all queues are gone */
	return restore_queues(restore) > 0 ? restore->queues.items[restore->queues.count - 1].number + 1 : 0;
}

static void note_damaged(struct restore *restore, unsigned count, int error)
{
	stats_add(restore->slot, STAT_DAMAGED, count);
	handover_log_damaged(count, error);
}

/* Receive the next pack. Empty queues are closed and removed from the store. Returns whether there is a
 * pack. */
static bool pack_fetch(struct restore *restore)
{
	while (restore->at < restore->queues.count) {
		struct fdstore_queue *queue = &restore->queues.items[restore->at];
		unsigned waiting = pack_waiting(queue->fd), left;
		int r;

		pack_clear(&restore->pack);
		r = pack_receive(&restore->pack, queue->fd);
		if (r > 0)
			return true;
		left = pack_waiting(queue->fd);
		if (r < 0) {
			note_damaged(restore, left < waiting ? waiting - left : 1, r);
			continue;
		}
		if (left > 0)
			note_damaged(restore, left, -EBADMSG);
		close(queue->fd);
		fdstore_forget_queue(queue->number);
		restore->at++;
	}
	return false;
}

bool restore_next(struct restore *restore, struct new_conn *new_conn)
{
	if (restore->has_new_conn) {
		*new_conn = restore->new_conn;
		restore->has_new_conn = false;
		return true;
	}
	if (preserve_next(&restore->overflow, new_conn))
		return true;
	do {
		unsigned left;

		while ((left = pack_left(&restore->pack)) > 0) {
			int r = pack_next(&restore->pack, new_conn);

			if (r > 0)
				return true;
			note_damaged(restore, left - pack_left(&restore->pack), r);
		}
	} while (pack_fetch(restore));
	return false;
}

static void new_conn_close(struct new_conn *new_conn)
{
	close(new_conn->fd);
	conn_clear(&new_conn->conn);
}

void restore_feed(struct restore *restore, int outbox)
{
	restore->retry_at = INT64_MAX;
	for (unsigned i = 0; i < PACK_MAX && restore_next(restore, &restore->new_conn); i++) {
		int r = handover_pass(outbox, &restore->new_conn);

		switch (r) {
		case -ETOOMANYREFS:
		case -EMFILE:
		case -ENFILE:
		case -ENOMEM:
		case -ENOBUFS:
			restore->retry_at = clock_usec() + RETRY_USEC;
			restore->has_new_conn = true;
			return;
		case -EAGAIN:
			restore->has_new_conn = true;
			return;
		case 0:
			break;
		default:
			note_damaged(restore, 1, r);
		}
		new_conn_close(&restore->new_conn);
	}
}

void restore_take(struct restore *restore, int inbox, int outbox)
{
	struct preserve *overflow = &restore->overflow;
	struct new_conn rest;

	if (list_empty(&overflow->packs))
		overflow->highest = 0;
	/* what the supervisor cannot hold must stay in the queue: the kernel would close it */
	if (!has_descriptors(overflow) || preserve_take(overflow, inbox, TAKE_BATCH, &rest) >= 0 ||
	    rest.fd < 0)
		return;
	restore_add(restore, outbox, &rest);
}

void restore_add(struct restore *restore, int outbox, struct new_conn *new_conn)
{
	int r = handover_pass(outbox, new_conn);

	if (r == 0) {
		new_conn_close(new_conn);
		return;
	}
	restore->overflow.highest = new_conn->fd;
	if (preserve_add(&restore->overflow, new_conn) == 0)
		return;
	if (restore->has_new_conn) {
		note_damaged(restore, 1, r);
		new_conn_close(new_conn);
		return;
	}
	restore->new_conn = *new_conn;
	restore->has_new_conn = true;
}

int restore_preserve(struct restore *restore, struct preserve *preserve)
{
	int r = 0;

	while (r == 0 && has_received(restore)) {
		if (!restore_next(restore, &restore->new_conn))
			return 0;
		r = preserve_add(preserve, &restore->new_conn);
		restore->has_new_conn = r < 0;
	}
	while (r == 0 && pack_fetch(restore))
		r = preserve_add_pack(preserve, &restore->pack);
	return r;
}

void restore_clear(struct restore *restore)
{
	if (restore->has_new_conn)
		new_conn_close(&restore->new_conn);
	restore->has_new_conn = false;
	preserve_clear(&restore->overflow);
	pack_clear(&restore->pack);
	for (; restore->at < restore->queues.count; restore->at++)
		close(restore->queues.items[restore->at].fd);
}

void restore_forget(const struct restore *restore)
{
	for (unsigned i = restore->at; i < restore->queues.count; i++)
		fdstore_forget_queue(restore->queues.items[i].number);
}
