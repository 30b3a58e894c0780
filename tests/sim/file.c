/* SPDX-License-Identifier: ISC */
/* file.c - open files, descriptor tables, readiness, epoll sets: see sim.h */
#include <config.h>

#include "sim.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* A fiber that waits for a file. The entry is not valid any more when the fiber has begun another wait. */
struct waiter {
	struct fiber *fiber;
	uint64_t wait;
};

/* A file in an epoll set. */
struct item {
	struct list of_file, of_set, ready;
	struct file *file, *set;
	int fd;
	uint32_t events;
	bool is_ready;
	void *data;
};

/* --- descriptors ------------------------------------------------------------------------ */

struct process *process_make(struct crew *crew, int limit)
{
	struct process *process = calloc(1, sizeof *process);

	if (process)
		process->files = calloc((size_t) limit, sizeof *process->files);
	if (!process || !process->files)
		abort();
	process->crew = crew;
	process->limit = limit;
	process->lowest = 3;
	return process;
}

void process_free(struct process *process)
{
	for (int fd = 0; fd < process->limit; fd++)
		if (process->files[fd])
			file_unref(process->files[fd]);
	free(process->files);
	free(process);
}

int process_open(struct process *process, struct file *file)
{
	while (process->lowest < process->limit && process->files[process->lowest])
		process->lowest++;
	if (process->lowest >= process->limit)
		return -1;
	process->files[process->lowest] = file;
	process->used++;
	return process->lowest++;
}

void process_open_at(struct process *process, int fd, struct file *file)
{
	if (fd >= process->limit || process->files[fd])
		abort();
	process->files[fd] = file;
	process->used++;
}

struct file *process_file(const struct process *process, int fd)
{
	return fd >= 0 && fd < process->limit ? process->files[fd] : NULL;
}

int process_close(struct process *process, int fd)
{
	struct file *file = process_file(process, fd);

	if (!file)
		return -EBADF;
	process->files[fd] = NULL;
	process->used--;
	if (fd < process->lowest)
		process->lowest = fd;
	file_unref(file);
	return 0;
}

/* --- files ------------------------------------------------------------------------------ */

struct file *file_make(enum file_kind kind)
{
	struct file *file = calloc(1, sizeof *file);

	if (!file)
		abort();
	file->kind = kind;
	file->refs = 1;
	list_init(&file->items);
	if (kind == FILE_LISTENER)
		list_init(&file->listener.backlog);
	if (kind == FILE_QUEUE)
		list_init(&file->queue.messages);
	if (kind == FILE_EPOLL) {
		list_init(&file->epoll.items);
		list_init(&file->epoll.ready);
	}
	return file;
}

void file_ref(struct file *file)
{
	file->refs++;
}

static void item_free(struct item *item)
{
	list_remove(&item->of_file);
	list_remove(&item->of_set);
	list_remove(&item->ready);
	free(item);
}

static void queue_close(struct file *file)
{
	if (file->queue.peer) {
		file->queue.peer->queue.peer = NULL;
		file_wake(file->queue.peer, POLLIN | POLLOUT | POLLHUP);
	}
	while (!list_empty(&file->queue.messages)) {
		struct message *message = LIST_ENTRY(file->queue.messages.next, struct message, link);

		list_remove(&message->link);
		for (unsigned i = 0; i < message->count; i++)
			file_unref(message->files[i]);
		free(message);
	}
}

void file_unref(struct file *file)
{
	if (--file->refs > 0)
		return;
	/* an epoll set loses a file when its last descriptor is closed */
	while (!list_empty(&file->items))
		item_free(LIST_ENTRY(file->items.next, struct item, of_file));
	if (file->kind == FILE_EPOLL)
		while (!list_empty(&file->epoll.items))
			item_free(LIST_ENTRY(file->epoll.items.next, struct item, of_set));
	if (file->kind == FILE_QUEUE)
		queue_close(file);
	if (file->kind == FILE_STREAM)
		stream_closed(file->stream);
	if (file->kind == FILE_MEMORY)
		free(file->memory.data);
	free(file->waiters);
	free(file);
}

static unsigned queue_ready(const struct file *file)
{
	unsigned ready = 0;

	if (!list_empty(&file->queue.messages))
		ready |= POLLIN;
	if (!file->queue.peer)
		ready |= POLLIN | POLLOUT | POLLHUP;
	else if (file->queue.peer->queue.count < file->queue.peer->queue.limit)
		ready |= POLLOUT;
	return ready;
}

unsigned file_ready(const struct file *file)
{
	switch (file->kind) {
	case FILE_LISTENER: return list_empty(&file->listener.backlog) ? 0 : POLLIN;
	case FILE_STREAM: return stream_ready(file->stream);
	case FILE_QUEUE: return queue_ready(file);
	case FILE_EVENT: return file->eventfd.counter > 0 ? POLLIN | POLLOUT : POLLOUT;
	case FILE_STOP: return file->stop ? POLLHUP : 0;
	default: sim_fail("a wait for a file of kind %d is not simulated", (int) file->kind);
	}
}

/* --- waiting ---------------------------------------------------------------------------- */

void file_watch(struct file *file)
{
	struct fiber *self = fiber_self();

	if (file->waiter_count == file->waiter_size) {
		size_t n = 0;

		for (size_t i = 0; i < file->waiter_count; i++)
			if (file->waiters[i].fiber->wait == file->waiters[i].wait)
				file->waiters[n++] = file->waiters[i];
		file->waiter_count = n;
		if (2 * n >= file->waiter_size) {
			file->waiter_size = file->waiter_size > 0 ? 2 * file->waiter_size : 8;
			file->waiters = realloc(file->waiters, file->waiter_size * sizeof *file->waiters);
			if (!file->waiters)
				abort();
		}
	}
	/* valid for the wait that begins next */
	file->waiters[file->waiter_count++] = (struct waiter) { self, self->wait + 1 };
}

static void item_ready(struct item *item)
{
	if (item->is_ready)
		return;
	item->is_ready = true;
	list_append(&item->set->epoll.ready, &item->ready);
}

/* Wake the fiber that waits for the set of the item. Returns whether there is one. */
static bool item_wake(const struct item *item)
{
	struct file *set = item->set;
	struct fiber *fiber = set->epoll.fiber;

	if (!fiber || !fiber->waiting || fiber->runnable || fiber->wait != set->epoll.wait)
		return false;
	fiber_wake(fiber);
	return true;
}

/* As ep_poll_callback() of Linux: an item with EPOLLEXCLUSIVE ends the search only where it wakes a waiter.
 * The order of the items depends on the kernel, so here it is random. */
static void wake_exclusive(struct file *file, unsigned events)
{
	struct item *items[256];
	size_t count = 0;

	for (struct list *at = file->items.next; at != &file->items; at = at->next) {
		struct item *item = LIST_ENTRY(at, struct item, of_file);

		if (item->events & EPOLLEXCLUSIVE && events & (item->events | POLLERR | POLLHUP) &&
		    count < sizeof items / sizeof items[0])
			items[count++] = item;
	}
	while (count > 0) {
		size_t i = (size_t) sim_below(count);
		struct item *item = items[i];

		items[i] = items[--count];
		item_ready(item);
		if (item_wake(item))
			return;
	}
}

void file_wake(struct file *file, unsigned events)
{
	bool exclusive = false;

	for (size_t i = 0; i < file->waiter_count; i++)
		if (file->waiters[i].fiber->wait == file->waiters[i].wait)
			fiber_wake(file->waiters[i].fiber);
	file->waiter_count = 0;
	for (struct list *at = file->items.next; at != &file->items; at = at->next) {
		struct item *item = LIST_ENTRY(at, struct item, of_file);

		if (item->events & EPOLLEXCLUSIVE) {
			exclusive = true;
		} else if (events & (item->events | POLLERR | POLLHUP)) {
			item_ready(item);
			(void) item_wake(item);
		}
	}
	if (exclusive)
		wake_exclusive(file, events);
}

/* --- epoll ------------------------------------------------------------------------------ */

static struct item *item_find(struct file *set, int fd, const struct file *file)
{
	for (struct list *at = file->items.next; at != &file->items; at = at->next) {
		struct item *item = LIST_ENTRY(at, struct item, of_file);

		if (item->set == set && item->fd == fd)
			return item;
	}
	return NULL;
}

static void item_poll(struct item *item)
{
	if (file_ready(item->file) & (item->events | POLLERR | POLLHUP)) {
		item_ready(item);
		(void) item_wake(item);
	}
}

int epoll_change(struct file *set, int operation, int fd, struct file *file, uint32_t events, void *data)
{
	struct item *item = item_find(set, fd, file);

	if (operation == EPOLL_CTL_ADD && item)
		return -EEXIST;
	if (operation != EPOLL_CTL_ADD && !item)
		return -ENOENT;
	if (operation == EPOLL_CTL_DEL) {
		item_free(item);
		return 0;
	}
	if (operation == EPOLL_CTL_MOD && (events | item->events) & EPOLLEXCLUSIVE)
		return -EINVAL;
	if (operation == EPOLL_CTL_ADD) {
		item = calloc(1, sizeof *item);
		if (!item)
			abort();
		item->file = file;
		item->set = set;
		item->fd = fd;
		list_append(&file->items, &item->of_file);
		list_append(&set->epoll.items, &item->of_set);
		list_init(&item->ready);
	}
	item->events = events;
	item->data = data;
	item_poll(item);
	return 0;
}

int epoll_take(struct file *set, struct epoll_event *events, int max)
{
	struct list taken;
	int n = 0;

	list_init(&taken);
	while (n < max && !list_empty(&set->epoll.ready)) {
		struct item *item = LIST_ENTRY(set->epoll.ready.next, struct item, ready);
		uint32_t got = file_ready(item->file) & (item->events | POLLERR | POLLHUP);

		list_remove(&item->ready);
		item->is_ready = false;
		if (got == 0)
			continue;
		events[n].events = got;
		events[n++].data.ptr = item->data;
		/* level-triggered: checked again by the next call */
		item->is_ready = true;
		list_append(&taken, &item->ready);
	}
	list_append_all(&set->epoll.ready, &taken);
	return n;
}
