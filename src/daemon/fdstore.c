/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/fdstore.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "models/fault.h"

#define NAME_PREFIX "echod-"
#define NAME_QUEUE "echod-connections-"
#define NAME_STREAM "echod-stream-"
#define NAME_DATAGRAM "echod-datagram-"

#define BUS_TIMEOUT (2 * USEC_PER_SEC)

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int append(struct sockets *set, const struct listener *listener)
{
	struct listener *items = reallocarray(set->items, set->count + 1, sizeof *items);

	if (!items)
		return -ENOMEM;
	set->items = items;
	items[set->count++] = *listener;
	return 0;
}

/* Whether the name is one that echod gave to a stored descriptor: it contains the address (listener_name()).
 * A socket unit without FileDescriptorName= passes the name of the unit, which may begin the same way but
 * ends in ".socket". */
static bool is_stored_name(const char *name)
{
	static const char *const prefixes[] = { NAME_STREAM, NAME_DATAGRAM };
	size_t length = strlen(name), suffix = strlen(".socket");

	for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
		const char *addr = name + strlen(prefixes[i]);

		if (starts_with(name, prefixes[i]) &&
		    (strchr("0123456789[", *addr) || starts_with(addr, "unix_")))
			return true;
	}
	return starts_with(name, NAME_PREFIX) &&
	       (length < suffix || strcmp(name + length - suffix, ".socket") != 0);
}

/* A unix socket is only useful while clients can find its file. */
static bool is_reachable(const struct listener *listener)
{
	struct stat st;

	return listener->addr.sa.sa_family != AF_UNIX || addr_is_abstract(&listener->addr) ||
	       (lstat(listener->addr.un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode));
}

static int collect_listener(struct fdstore *store, int fd, const char *name, struct diagnostics *errors)
{
	bool stored = is_stored_name(name);
	struct listener listener;
	int r = listener_adopt(&listener, fd, stored ? "" : name);

	if (r == 0 && stored && !is_reachable(&listener))
		r = -ENOENT;
	if (r < 0) {
		if (stored && r == -EINVAL)
			diag_add(errors,
			         "Closed descriptor %d (%s) of the descriptor store: this version of echod "
			         "does not store this type",
			         fd, name);
		else
			diag_add(errors,
			         "Cannot use descriptor %d (%s) passed by the service manager: %s; it must "
			         "be a listening stream socket or a datagram socket",
			         fd, name, r == -EINVAL ? "wrong type" : strerror(-r));
		close(fd);
		/* an unusable stored descriptor does not prevent the start; a wrong socket unit does */
		if (!stored)
			return -ENOTSOCK;
		notify_unstore(name);
		return 0;
	}
	if (stored) {
		listener.adopted = false; /* opened by an earlier echod, so its file may be removed */
		listener_note_file(&listener);
	}
	return append(stored ? &store->kept : &store->activated, &listener);
}

/* Add a queue of connections, ordered by number. Returns whether `name` is the name of a queue. */
static bool collect_queue(struct fdstore *store, int fd, const char *name, struct diagnostics *errors)
{
	const char *digits = name + strlen(NAME_QUEUE);
	struct fdstore_queues *queues = &store->queues;
	unsigned number, at;
	char end;

	if (!starts_with(name, NAME_QUEUE) || !strchr("0123456789", *digits) ||
	    sscanf(digits, "%9u%c", &number, &end) != 1)
		return false;
	if (queues->count == FDSTORE_QUEUES_MAX || sd_is_socket_unix(fd, SOCK_SEQPACKET, 0, NULL, 0) <= 0) {
		diag_add(errors,
		         "Closed descriptor %d (%s) of the descriptor store, and connections in it: it is "
		         "not a queue of this version",
		         fd, name);
		close(fd);
		notify_unstore(name);
		return true;
	}
	for (at = queues->count++; at > 0 && queues->items[at - 1].number > number; at--)
		queues->items[at] = queues->items[at - 1];
	queues->items[at] = (struct fdstore_queue) { .fd = fd, .number = number };
	return true;
}

int fdstore_collect(struct fdstore *store, struct diagnostics *errors)
{
	char **names = NULL;
	int count, r = 0;

	*store = (struct fdstore) { 0 };
	count = sd_listen_fds_with_names(1, &names);
	for (int i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (r == 0 && !collect_queue(store, fd, names[i], errors))
			r = collect_listener(store, fd, names[i], errors);
		free(names[i]);
	}
	free(names);
	return count < 0 ? count : r;
}

unsigned fdstore_descriptors(const struct fdstore *store, int fds[], unsigned max_count)
{
	unsigned count = 0;

	for (size_t i = 0; i < store->activated.count && count < max_count; i++)
		fds[count++] = store->activated.items[i].fd;
	for (size_t i = 0; i < store->kept.count && count < max_count; i++)
		fds[count++] = store->kept.items[i].fd;
	for (unsigned i = 0; i < store->queues.count && count < max_count; i++)
		fds[count++] = store->queues.items[i].fd;
	return count;
}

/* The name in the store. FDNAME may have any printable character except a colon. */
static char *listener_name(const struct listener *listener, char name[static 256])
{
	char addr[ADDR_TEXT_MAX];

	snprintf(name, 256, "%s%s", listener->kind == LISTENER_STREAM ? NAME_STREAM : NAME_DATAGRAM,
	         addr_print(&listener->addr, addr));
	for (char *c = name; *c; c++)
		if (*c == ':' || *c < ' ' || *c > '~')
			*c = '_';
	return name;
}

void fdstore_keep(const struct sockets *set)
{
	char name[256];

	for (size_t i = 0; i < set->count; i++)
		if (!set->items[i].adopted)
			(void) notify_store(listener_name(&set->items[i], name), set->items[i].fd, false);
}

void fdstore_forget(const struct sockets *set)
{
	char name[256];

	for (size_t i = 0; i < set->count; i++)
		if (!set->items[i].adopted)
			notify_unstore(listener_name(&set->items[i], name));
}

static char *queue_name(unsigned number, char name[static 32])
{
	snprintf(name, 32, NAME_QUEUE "%u", number);
	return name;
}

int fdstore_keep_queue(unsigned number, int fd)
{
	char name[32];

	return notify_store(queue_name(number, name), fd, true);
}

void fdstore_forget_queue(unsigned number)
{
	char name[32];

	notify_unstore(queue_name(number, name));
}

/* --- what the manager does after a stop ------------------------------------------------ */

#define MANAGER "org.freedesktop.systemd1"

/* Properties of this service's unit. */
struct unit {
	bool restarts;  /* the job of the unit is a restart */
	bool preserves; /* the store is kept after a stop as well (systemd 254,
	                 * FileDescriptorStorePreserve=yes) */
	uint32_t kept;  /* number of descriptors in its store */
	uint32_t max;   /* FileDescriptorStoreMax= */
};

/* The object path of this service's unit, to be freed; NULL where it cannot be determined. */
static char *unit_path(sd_bus *bus)
{
	sd_bus_message *reply = NULL;
	char *unit = NULL;
	const char *path;

	/* 0: the caller, identified by the kernel; this works in a PID namespace, too */
	if (sd_bus_call_method(bus, MANAGER, "/org/freedesktop/systemd1", MANAGER ".Manager", "GetUnitByPID",
	                       NULL, &reply, "u", UINT32_C(0)) >= 0 &&
	    sd_bus_message_read(reply, "o", &path) >= 0)
		unit = strdup(path);
	sd_bus_message_unref(reply);
	return unit;
}

/* Whether the unit's job is a restart. */
static bool is_restarting(sd_bus *bus, const char *unit)
{
	sd_bus_message *property = NULL;
	char *type = NULL;
	const char *job;
	bool restart = false;
	uint32_t id = 0;

	if (sd_bus_get_property(bus, MANAGER, unit, MANAGER ".Unit", "Job", NULL, &property, "(uo)") >= 0 &&
	    sd_bus_message_read(property, "(uo)", &id, &job) >= 0 && id != 0 &&
	    sd_bus_get_property_string(bus, MANAGER, job, MANAGER ".Job", "JobType", NULL, &type) >= 0)
		restart = strstr(type, "restart") != NULL;
	free(type);
	sd_bus_message_unref(property);
	return restart;
}

static uint32_t service_number(sd_bus *bus, const char *unit, const char *property)
{
	uint32_t value = 0;

	if (sd_bus_get_property_trivial(bus, MANAGER, unit, MANAGER ".Service", property, NULL, 'u', &value) <
	    0)
		return 0;
	return value;
}

/* Connect to the private socket of the manager, which works without a bus, but only for root. */
static int open_private(sd_bus **bus)
{
	int r = sd_bus_new(bus);

	if (r >= 0)
		r = sd_bus_set_address(*bus, "unix:path=/run/systemd/private");
	return r < 0 ? r : sd_bus_start(*bus);
}

/* Query the manager over `bus`, which is closed. Returns whether it answered. */
static bool ask(sd_bus *bus, int opened, struct unit *answer)
{
	char *preserve = NULL, *unit = NULL;

	if (opened >= 0) {
		sd_bus_set_method_call_timeout(bus, BUS_TIMEOUT);
		unit = unit_path(bus);
	}
	if (unit) {
		answer->restarts = is_restarting(bus, unit);
		answer->kept = service_number(bus, unit, "NFileDescriptorStore");
		answer->max = service_number(bus, unit, "FileDescriptorStoreMax");
		answer->preserves =
			sd_bus_get_property_string(bus, MANAGER, unit, MANAGER ".Service",
		                                   "FileDescriptorStorePreserve", NULL, &preserve) >= 0 &&
			!strcmp(preserve, "yes");
	}
	free(preserve);
	sd_bus_flush_close_unref(bus);
	if (!unit)
		return false;
	free(unit);
	return true;
}

static bool ask_manager(struct unit *answer)
{
	sd_bus *bus = NULL;
	int r;

	*answer = (struct unit) { 0 };
	r = sd_bus_open_system(&bus);
	if (ask(bus, r, answer))
		return true;
	bus = NULL;
	r = open_private(&bus);
	return ask(bus, r, answer);
}

/* FileDescriptorStoreMax= of the unit, from $FDSTORE (systemd 254 and later); 0: unknown. Such a manager
 * drops the store itself unless it starts the service again. */
static uint32_t fdstore_max(void)
{
	const char *text = getenv("FDSTORE");
	unsigned max;
	char end;

	return text && sscanf(text, "%9u%c", &max, &end) == 1 ? max : 0;
}

/* Number of the sockets that are in the store. */
static uint32_t count_stored(const struct sockets *set)
{
	uint32_t count = 0;

	for (size_t i = 0; i < set->count; i++)
		count += !set->items[i].adopted;
	return count;
}

enum fdstore_stop fdstore_ask_stop(const struct sockets *set, unsigned queues, unsigned *room)
{
	struct unit unit;
	enum fdstore_stop stop = FDSTORE_DROPPED;

	*room = 0;
	if (!notify_enabled())
		return FDSTORE_DROPPED;
	if (ask_manager(&unit)) {
		/* a preserved store is dropped with the unit, when no other unit refers to it any more */
		stop = unit.restarts ? FDSTORE_KEPT : unit.preserves ? FDSTORE_UNKNOWN : FDSTORE_DROPPED;
		if (unit.kept >= count_stored(set) && unit.max > unit.kept)
			*room = unit.max - unit.kept;
	} else if (fdstore_max() > 0) {
		stop = fault_number("ECHOD_FAULT_RESTART", 0) ? FDSTORE_KEPT : FDSTORE_UNKNOWN;
		if (fdstore_max() > count_stored(set) + queues)
			*room = fdstore_max() - count_stored(set) - queues;
	}
	if (stop == FDSTORE_DROPPED || *room > 0)
		return stop;
	log_event(LOG_WARNING, EVENT_HANDOVER,
	          "Cannot keep connections over this restart: the unit's descriptor store is too small; set "
	          "FileDescriptorStoreMax= to 128");
	return FDSTORE_DROPPED;
}

bool fdstore_is_useful(void)
{
	struct unit unit;

	return fdstore_max() > 0 || ask_manager(&unit);
}
