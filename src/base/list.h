/* SPDX-License-Identifier: ISC */
/* list.h - an intrusive, circular, doubly linked list
 *
 * The head of an empty list points to itself; an entry is embedded in the object it links. No allocation, no
 * locking: the owner of the head serialises. An entry is in at most one list.
 */
#ifndef ECHOD_BASE_LIST_H
#define ECHOD_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define LIST_ENTRY(entry, type, member) ((type *) (void *) ((char *) (entry) - offsetof(type, member)))

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline void list_append(struct list *head, struct list *entry)
{
	entry->prev = head->prev;
	entry->next = head;
	head->prev->next = entry;
	head->prev = entry;
}

static inline void list_prepend(struct list *head, struct list *entry)
{
	list_append(head->next, entry);
}

/* Move all entries of the list `from` to the end of `head`. */
static inline void list_append_all(struct list *head, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = head->prev;
	head->prev->next = from->next;
	from->prev->next = head;
	head->prev = from->prev;
	list_init(from);
}

static inline void list_remove(struct list *entry)
{
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
	list_init(entry);
}

static inline void list_move_last(struct list *head, struct list *entry)
{
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
	list_append(head, entry);
}

#endif
