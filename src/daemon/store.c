#include <config.h>

#include "daemon/store.h"

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

#define NAME_OURS "echod-"
#define NAME_INBOX "echod-queue-in"
#define NAME_OUTBOX "echod-queue-out"
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

/* What we stored is named after its address (listener_name()). A socket unit without
 * FileDescriptorName= gives its own name, which may begin as ours do but ends in ".socket". */
static bool is_ours(const char *name)
{
	static const char *const prefixes[] = { NAME_STREAM, NAME_DATAGRAM };
	size_t length = strlen(name), suffix = strlen(".socket");

	for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
		const char *addr = name + strlen(prefixes[i]);

		if (starts_with(name, prefixes[i]) && (strchr("0123456789[", *addr) || starts_with(addr, "unix_")))
			return true;
	}
	return starts_with(name, NAME_OURS) && (length < suffix || strcmp(name + length - suffix, ".socket") != 0);
}

/* A unix socket is of use only as long as it can be found. */
static bool is_reachable(const struct listener *listener)
{
	struct stat st;

	return listener->addr.sa.sa_family != AF_UNIX || (lstat(listener->addr.un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode));
}

static int collect_listener(struct store *store, int fd, const char *name, struct conf_errors *errors)
{
	bool ours = is_ours(name);
	struct listener listener;
	int r = listener_adopt(&listener, fd, ours ? "" : name);

	if (r == 0 && ours && !is_reachable(&listener))
		r = -ENOENT;
	if (r < 0) {
		conf_errors_add(errors, "descriptor %d (%s) passed by the service manager is of no use: %s; echod takes stream "
		                "sockets that listen and datagram sockets", fd, name, r == -EINVAL ? "wrong type" : strerror(-r));
		close(fd);
		/* what we stored is no reason not to start; a socket unit's mistake is */
		if (!ours)
			return -ENOTSOCK;
		notify_unstore(name);
		return 0;
	}
	if (ours) {
		listener.adopted = false; /* opened here once, so its file is ours to remove */
		listener_note_file(&listener);
	}
	return append(ours ? &store->kept : &store->activated, &listener);
}

/* Whether `fd` can be an end of the queue: a connected seqpacket socket whose other end lives. */
static bool is_queue_end(int fd)
{
	struct pollfd end = { .fd = fd };

	return fd >= 0 && sd_is_socket_unix(fd, SOCK_SEQPACKET, 0, NULL, 0) > 0 && poll(&end, 1, 0) == 0;
}

static bool is_same_file(int one, int other)
{
	struct stat a, b;

	return fstat(one, &a) < 0 || fstat(other, &b) < 0 || (a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

/* A queue of which not both ends are there and sound is of no use, and would keep workers from their work. */
static void check_queue(struct store *store, struct conf_errors *errors)
{
	if (store->inbox < 0 && store->outbox < 0)
		return;
	if (is_queue_end(store->inbox) && is_queue_end(store->outbox) && !is_same_file(store->inbox, store->outbox))
		return;
	conf_errors_add(errors, "the queue of connections kept by the service manager (%s, %s) is damaged: what may be in it is "
	                "lost, and a new one is made", NAME_INBOX, NAME_OUTBOX);
	if (store->inbox >= 0)
		close(store->inbox);
	if (store->outbox >= 0)
		close(store->outbox);
	store->inbox = store->outbox = -1;
	store_forget_queue();
}

int store_collect(struct store *store, struct conf_errors *errors)
{
	char **names = NULL;
	int count, r = 0;

	*store = (struct store) { .inbox = -1, .outbox = -1 };
	count = sd_listen_fds_with_names(1, &names);
	for (int i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (r == 0 && !strcmp(names[i], NAME_INBOX) && store->inbox < 0)
			store->inbox = fd;
		else if (r == 0 && !strcmp(names[i], NAME_OUTBOX) && store->outbox < 0)
			store->outbox = fd;
		else if (r == 0)
			r = collect_listener(store, fd, names[i], errors);
		free(names[i]);
	}
	free(names);
	check_queue(store, errors);
	return count < 0 ? count : r;
}

unsigned store_descriptors(const struct store *store, int fds[], unsigned most)
{
	unsigned count = 0;

	for (size_t i = 0; i < store->activated.count && count < most; i++)
		fds[count++] = store->activated.items[i].fd;
	for (size_t i = 0; i < store->kept.count && count < most; i++)
		fds[count++] = store->kept.items[i].fd;
	if (store->inbox >= 0 && count < most)
		fds[count++] = store->inbox;
	if (store->outbox >= 0 && count < most)
		fds[count++] = store->outbox;
	return count;
}

/* FDNAME may hold anything printable but a colon. */
static char *listener_name(const struct listener *listener, char name[static 256])
{
	char addr[ADDR_TEXT_MAX];

	snprintf(name, 256, "%s%s", listener->kind == LISTENER_STREAM ? NAME_STREAM : NAME_DATAGRAM,
	         addr_print(&listener->addr, addr));
	for (char *c = name; *c; c++)
		if (*c == ':')
			*c = '_';
	return name;
}

void store_keep(const struct sockets *set, int inbox, int outbox)
{
	char name[256];

	for (size_t i = 0; i < set->count; i++)
		if (!set->items[i].adopted)
			notify_store(listener_name(&set->items[i], name), set->items[i].fd, false);
	notify_store(NAME_INBOX, inbox, false);
	notify_store(NAME_OUTBOX, outbox, false);
}

void store_forget(const struct sockets *set)
{
	char name[256];

	for (size_t i = 0; i < set->count; i++)
		if (!set->items[i].adopted)
			notify_unstore(listener_name(&set->items[i], name));
}

void store_forget_queue(void)
{
	notify_unstore(NAME_INBOX);
	notify_unstore(NAME_OUTBOX);
}

#define MANAGER "org.freedesktop.systemd1"

/* The object path of this service's unit, to be freed; NULL where it cannot be found out. */
static char *unit_path(sd_bus *bus)
{
	sd_bus_message *reply = NULL;
	char *unit = NULL;
	const char *path;

	if (sd_bus_call_method(bus, MANAGER, "/org/freedesktop/systemd1", MANAGER ".Manager", "GetUnitByPID", NULL, &reply, "u",
	                       (uint32_t) getpid()) >= 0 &&
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

/* Whether the manager keeps as many descriptors as it was given: the unit says how many it may
 * (FileDescriptorStoreMax=), and none by default. */
static bool is_kept(sd_bus *bus, const char *unit, const struct sockets *set)
{
	uint32_t given = 2, kept = 0;

	for (size_t i = 0; i < set->count; i++)
		given += !set->items[i].adopted;
	return sd_bus_get_property_trivial(bus, MANAGER, unit, MANAGER ".Service", "NFileDescriptorStore", NULL, 'u',
	                                   &kept) >= 0 && kept >= given;
}

bool store_survives(const struct sockets *set)
{
	bool restart = false, kept = false;
	sd_bus *bus = NULL;
	char *unit = NULL;

	if (notify_enabled() && sd_bus_open_system(&bus) >= 0) {
		sd_bus_set_method_call_timeout(bus, BUS_TIMEOUT);
		unit = unit_path(bus);
		restart = unit && is_restarting(bus, unit);
		kept = restart && is_kept(bus, unit, set);
	}
	if (restart && !kept)
		log_event(LOG_WARNING, EVENT_HANDOVER, "Connections cannot be kept over this restart: the unit's descriptor store "
		          "is too small; set FileDescriptorStoreMax= to 128");
	free(unit);
	sd_bus_flush_close_unref(bus);
	return kept;
}
