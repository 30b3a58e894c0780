/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* How a file gets a group that the process may not give it. */
#define SET_GROUP_ID \
	"put it into a directory of that group with the set-group-ID bit (chmod g+s), or set unix-group = " \
	"\"\""

struct socket_builder {
	struct sockets *set, *have;
	const struct conf *conf;
	const struct privileges *owner;
	struct diagnostics *errors;
};

/* Whether the listener has the protocol that `conf` asks for: with Multipath TCP or without. */
static bool has_protocol(const struct listener *listener, const struct conf *conf)
{
	return listener->kind != LISTENER_STREAM || listener->addr.sa.sa_family == AF_UNIX ||
	       listener->mptcp == conf->mptcp;
}

static struct listener *find(const struct socket_builder *builder, const struct addr *addr,
                             enum listener_kind kind)
{
	for (size_t i = 0; i < builder->have->count; i++) {
		struct listener *listener = &builder->have->items[i];

		if (listener->kind == kind && addr_equal(&listener->addr, addr) &&
		    listener_is_reachable(listener) && has_protocol(listener, builder->conf))
			return listener;
	}
	return NULL;
}

static const char *bind_error_text(int error)
{
	switch (error) {
	case EADDRINUSE:
		return "the address is in use; stop the process that uses it (see ss -lnp) or choose another "
		       "port";
	case EACCES:
	case EPERM:
		return "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE, a unix socket "
		       "needs a directory that may be written to";
	case EADDRNOTAVAIL:
		return "the address is not one of this host's; choose another one, or set freebind = true to "
		       "wait for it";
	case ENODEV:
		return "there is no such interface";
	case EEXIST:
		return "a file that is not a socket exists there; remove it or choose another path";
	case ENOENT:
		return "no such directory";
	case ENOPROTOOPT:
		return "Multipath TCP is switched off; set the sysctl net.mptcp.enabled = 1, or mptcp = "
		       "false";
	case EPROTONOSUPPORT:
		return "this kernel has no Multipath TCP (CONFIG_MPTCP); set mptcp = false";
	case EAFNOSUPPORT:
		return "this host does not have this address family";
	default:
		return strerror(error);
	}
}

/* The group of unix-group; (gid_t) -1: none is configured, or it was removed after the file was checked. */
static gid_t unix_gid(const struct conf *conf)
{
	const struct group *group = *conf->unix_group ? getgrnam(conf->unix_group) : NULL;

	return group ? group->gr_gid : (gid_t) -1;
}

/* Open a listener. A wildcard address and a single address of the same port can only be bound at the same
 * time if both sockets agree (SO_REUSEPORT); during a reload, set that on the older one. */
static int open_beside(struct listener *listener, const struct socket_builder *builder,
                       enum listener_kind kind, const struct addr *addr)
{
	gid_t gid = unix_gid(builder->conf);
	bool group_named = gid != (gid_t) -1;
	struct listener_options options = {
		.backlog = (int) builder->conf->backlog,
		.buffer = builder->conf->socket_buffer,
		.keepalive = builder->conf->tcp_keepalive,
		.uid = builder->owner->uid,
		.gid = group_named ? gid : builder->owner->gid,
		.group_named = group_named,
		.mode = builder->conf->unix_mode,
		.freebind = builder->conf->freebind,
		.mptcp = builder->conf->mptcp,
	};
	int r = listener_open(listener, kind, addr, &options);
	bool shared = false;

	if (r != -EADDRINUSE || addr->sa.sa_family == AF_UNIX)
		return r;
	for (size_t i = 0; i < builder->have->count; i++) {
		const struct listener *other = &builder->have->items[i];

		if (other->kind == kind && addr_port(&other->addr) == addr_port(addr) &&
		    other->addr.sa.sa_family != AF_UNIX)
			shared |= listener_share_port(other) == 0;
	}
	if (!shared)
		return r;
	options.shared = true;
	r = listener_open(listener, kind, addr, &options);
	for (size_t i = 0; i < builder->have->count; i++)
		(void) listener_unshare_port(&builder->have->items[i]);
	for (size_t i = 0; r == 0 && i < builder->have->count; i++)
		if (builder->have->items[i].kind == kind && addr_equal(&builder->have->items[i].addr, addr))
			listener_take_clients(listener, &builder->have->items[i]);
	return r;
}

static void log_presence(const struct listener *listener)
{
	char text[ADDR_TEXT_MAX];

	if (listener->presence == LISTENER_ABSENT)
		log_event(LOG_WARNING, EVENT_ADDRESS_ABSENT,
		          "Bound %s, which is not an address of this host: it is served as soon as the host "
		          "has it (freebind)",
		          addr_print(&listener->addr, text));
	else if (listener->presence == LISTENER_TENTATIVE)
		log_event(LOG_INFO, EVENT_ADDRESS_ABSENT,
		          "Bound %s before the end of duplicate address detection: it is served after that",
		          addr_print(&listener->addr, text));
}

static void add_bind_error(const struct socket_builder *builder, enum listener_kind kind,
                           const struct addr *addr, const char *interface, int error)
{
	const char *protocol = kind == LISTENER_STREAM ? " (tcp)" : " (udp)";
	char text[ADDR_TEXT_MAX];

	if (addr->sa.sa_family == AF_UNIX)
		protocol = "";
	else if (kind == LISTENER_STREAM && builder->conf->mptcp)
		protocol = " (mptcp)";
	diag_add(builder->errors, "cannot listen on %s%s%s%s: %s", addr_print(addr, text),
	         *interface ? " at " : "", interface, protocol, bind_error_text(error));
}

static int add(struct socket_builder *builder, enum listener_kind kind, const struct addr *addr)
{
	struct listener *have = find(builder, addr, kind), *items;
	struct sockets *set = builder->set;
	char text[ADDR_TEXT_MAX];
	int r = 0;

	items = reallocarray(set->items, set->count + 1, sizeof *items);
	if (!items)
		return -ENOMEM;
	set->items = items;
	if (have) {
		have->keep = true;
		items[set->count] = *have;
	} else {
		r = open_beside(&items[set->count], builder, kind, addr);
	}
	if (r < 0 && items[set->count].group_refused)
		diag_add(builder->errors,
		         "cannot listen on %s: this process may not give the file the group "
		         "\"%s\"; " SET_GROUP_ID,
		         addr_print(addr, text), builder->conf->unix_group);
	else if (r < 0)
		add_bind_error(builder, kind, addr, "", -r);
	if (r < 0)
		return r;
	if (!have)
		log_presence(&items[set->count]);
	items[set->count++].keep = have != NULL;
	return 0;
}

static int add_for_protocols(struct socket_builder *builder, const struct addr *addr)
{
	int r = 0;

	if (builder->conf->tcp || addr->sa.sa_family == AF_UNIX)
		r = add(builder, LISTENER_STREAM, addr);
	if (r == 0 && builder->conf->udp && addr->sa.sa_family != AF_UNIX)
		r = add(builder, LISTENER_DATAGRAM, addr);
	return r;
}

/* Look up the index of an interface that did not exist when the configuration was read. */
static int add_at_interface(struct socket_builder *builder, const struct conf_listen *listen)
{
	struct addr addr = listen->addr;

	addr.in6.sin6_scope_id = if_nametoindex(listen->interface);
	if (addr.in6.sin6_scope_id == 0) {
		add_bind_error(builder, builder->conf->tcp ? LISTENER_STREAM : LISTENER_DATAGRAM, &addr,
		               listen->interface, ENODEV);
		return -ENODEV;
	}
	return add_for_protocols(builder, &addr);
}

static int add_wildcard(struct socket_builder *builder, uint16_t port)
{
	struct addr any4 = { .in = { .sin_family = AF_INET, .sin_port = htons(port) },
		             .len = sizeof any4.in };
	struct addr any6 = { .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) },
		             .len = sizeof any6.in6 };
	int r = add_for_protocols(builder, &any4);

	if (r == 0 && listener_ipv6_available())
		r = add_for_protocols(builder, &any6);
	return r;
}

/* Keep listeners on single addresses that the configuration covers by a wildcard address. */
static int add_covered(struct socket_builder *builder)
{
	struct sockets *set = builder->set;
	size_t wildcards = set->count;

	for (size_t i = 0; i < builder->have->count; i++) {
		struct listener *listener = &builder->have->items[i], *items;
		bool covered = false;

		for (size_t j = 0; j < wildcards && !listener->keep; j++)
			covered |= listener_is_covered(listener, &set->items[j]) &&
			           has_protocol(listener, builder->conf);
		if (!covered)
			continue;
		items = reallocarray(set->items, set->count + 1, sizeof *items);
		if (!items)
			return -ENOMEM;
		set->items = items;
		listener->keep = true;
		items[set->count++] = *listener;
	}
	return 0;
}

static void sockets_clear(struct sockets *set)
{
	free(set->items);
	*set = (struct sockets) { 0 };
}

int sockets_open(struct sockets *set, const struct conf *conf, struct sockets *have,
                 const struct privileges *owner, struct diagnostics *errors)
{
	struct socket_builder builder = {
		.set = set, .have = have, .conf = conf, .owner = owner, .errors = errors
	};
	int r = 0;

	*set = (struct sockets) { 0 };
	for (size_t i = 0; i < have->count; i++)
		have->items[i].keep = false;
	for (size_t i = 0; r == 0 && i < conf->listen_count; i++) {
		const struct conf_listen *listen = &conf->listen[i];

		if (listen->wildcard)
			r = add_wildcard(&builder, addr_port(&listen->addr));
		else if (*listen->interface)
			r = add_at_interface(&builder, listen);
		else
			r = add_for_protocols(&builder, &listen->addr);
	}
	if (r == 0)
		r = add_covered(&builder);
	if (r < 0)
		sockets_abandon(set);
	return r;
}

void sockets_retire(struct sockets *have, struct sockets *retired)
{
	for (size_t i = 0; i < have->count; i++) {
		struct listener *listener = &have->items[i], *items;

		if (listener->keep || listener->kind != LISTENER_STREAM)
			continue;
		items = reallocarray(retired->items, retired->count + 1, sizeof *items);
		if (!items)
			continue; /* sockets_commit() closes it */
		listener_refuse_new(listener);
		retired->items = items;
		items[retired->count++] = *listener;
		listener->fd = -1;
	}
}

void sockets_commit(struct sockets *have, const struct conf *conf)
{
	for (size_t i = 0; i < have->count; i++) {
		if (have->items[i].keep)
			(void) listener_set_backlog(&have->items[i], (int) conf->backlog);
		else
			listener_close(&have->items[i]);
	}
	sockets_clear(have);
}

void sockets_abandon(struct sockets *set)
{
	for (size_t i = 0; i < set->count; i++)
		if (!set->items[i].keep)
			listener_close(&set->items[i]);
	sockets_clear(set);
}

uint64_t sockets_count_dropped(struct sockets *set, struct sockets *next)
{
	uint64_t count = 0;

	for (size_t i = 0; i < set->count; i++) {
		const struct listener *listener = &set->items[i];

		count += listener_count_dropped(&set->items[i]);
		for (size_t j = 0; j < next->count; j++)
			if (next->items[j].fd == listener->fd)
				next->items[j].dropped = listener->dropped;
	}
	return count;
}

void sockets_stop_sharing(const struct sockets *set)
{
	for (size_t i = 0; i < set->count; i++)
		if (set->items[i].kind == LISTENER_STREAM && !set->items[i].adopted &&
		    set->items[i].addr.sa.sa_family != AF_UNIX)
			(void) listener_unshare_port(&set->items[i]);
}

void sockets_close(struct sockets *set, enum sockets_files files)
{
	for (size_t i = 0; i < set->count; i++) {
		if (files == SOCKETS_KEEP_FILES)
			set->items[i].adopted = true;
		listener_close(&set->items[i]);
	}
	sockets_clear(set);
}

void sockets_set_files(const struct sockets *set, const struct conf *conf)
{
	gid_t gid = unix_gid(conf);
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < set->count; i++) {
		int r = listener_set_file(&set->items[i], conf->unix_mode, gid);

		if (r < 0)
			log_event(LOG_WARNING, EVENT_CONFIG_WRONG,
			          "%s: cannot apply unix-mode and unix-group to %s: %s%s", conf->path,
			          addr_print(&set->items[i].addr, text), strerror(-r),
			          r == -EPERM ? "; " SET_GROUP_ID : "");
	}
}

void sockets_set_keepalive(const struct sockets *set, unsigned seconds)
{
	for (size_t i = 0; i < set->count; i++)
		listener_set_keepalive(&set->items[i], seconds);
}

void sockets_set_buffers(const struct sockets *set, unsigned bytes, unsigned before)
{
	for (size_t i = 0; i < set->count; i++)
		if (bytes > 0 || before > 0 || !set->items[i].adopted)
			listener_set_buffers(&set->items[i], bytes);
}

char *sockets_print(const struct sockets *set, char *text, size_t size)
{
	char addr[ADDR_TEXT_MAX];
	size_t at = 0;

	*text = '\0';
	for (size_t i = 0; i < set->count && at < size; i++) {
		const struct listener *listener = &set->items[i];
		const char *protocol = listener->mptcp ? " (mptcp)" : "";

		if (listener->kind == LISTENER_DATAGRAM)
			protocol = " (udp)";
		at += (size_t) snprintf(text + at, size - at, "%s%s%s%s%s", i > 0 ? ", " : "",
		                        addr_print(&listener->addr, addr), protocol,
		                        *listener->name ? " named " : "", listener->name);
	}
	return text;
}

static bool is_configured(const struct listener *listener, const struct conf_listen *listen)
{
	return addr_equal(&listener->addr, &listen->addr) ||
	       (listen->wildcard && listener->addr.sa.sa_family != AF_UNIX &&
	        addr_port(&listener->addr) == addr_port(&listen->addr));
}

bool sockets_are_configured(const struct sockets *sockets, const struct conf *conf)
{
	bool same = true;

	if (conf->origin[CONF_LISTEN].source == CONF_FROM_DEFAULT &&
	    conf->origin[CONF_PORT].source == CONF_FROM_DEFAULT)
		return true;
	for (size_t i = 0; i < sockets->count; i++) {
		bool found = false;

		for (size_t j = 0; j < conf->listen_count; j++)
			found |= is_configured(&sockets->items[i], &conf->listen[j]);
		same &= found;
	}
	for (size_t j = 0; j < conf->listen_count; j++) {
		bool found = false;

		for (size_t i = 0; i < sockets->count; i++)
			found |= is_configured(&sockets->items[i], &conf->listen[j]);
		same &= found;
	}
	return same;
}
