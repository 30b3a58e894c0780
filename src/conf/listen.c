/* SPDX-License-Identifier: ISC */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/quote.h"
#include "conf/reader.h"

/* Read one entry of `listen`. "*" is read as the IPv6 wildcard address with its port. */
static int entry_parse(struct conf_listen *entry, const char *text, uint16_t port, const char **why)
{
	char host[sizeof("[::]:65535")];
	int r;

	if (text[0] != '*' || (text[1] != '\0' && text[1] != ':') || strlen(text) > sizeof("*:65535") - 1) {
		r = addr_parse(&entry->addr, text, port, why);
		if (r != -ENODEV)
			return r;
		/* the interface may exist later, when the socket is bound */
		text = strchr(text, '%') + 1;
		snprintf(entry->interface, sizeof(entry->interface), "%.*s", (int) strcspn(text, "]"), text);
		return 0;
	}
	entry->wildcard = true;
	snprintf(host, sizeof(host), "[::]%s", text + 1);
	return addr_parse(&entry->addr, host, port, why);
}

/* Whether a socket bound to `a` also receives what is sent to `b`, so that both cannot be bound. */
static bool entry_covers(const struct conf_listen *a, const struct conf_listen *b)
{
	int a_family = a->addr.sa.sa_family, b_family = b->addr.sa.sa_family;

	if (addr_port(&a->addr) != addr_port(&b->addr)) /* 0 if unix */
		return false;
	if (a_family == AF_UNIX)
		return addr_equal(&a->addr, &b->addr);
	if (a->wildcard || b->wildcard)
		return a->wildcard;
	if (a_family != b_family)
		return false;
	if (addr_equal(&a->addr, &b->addr) && strcmp(a->interface, b->interface) == 0)
		return true;
	return a_family == AF_INET ? a->addr.in.sin_addr.s_addr == htonl(INADDR_ANY)
	                           : IN6_IS_ADDR_UNSPECIFIED(&a->addr.in6.sin6_addr);
}

/* Add an error if the last entry is the same as an earlier one, or one of the two includes the other. `texts`
 * maps entries to their strings. */
static void check_overlap(struct reader *reader, const size_t *texts)
{
	const struct conf *conf = reader->conf;
	size_t last = conf->listen_count - 1;
	char why[QUOTE_MAX + 64], shown[QUOTE_MAX];

	for (size_t i = 0; i < last; i++) {
		const struct conf_listen *a = &conf->listen[i], *b = &conf->listen[last];
		bool twice = entry_covers(a, b) && entry_covers(b, a);
		bool ahead = entry_covers(a, b);
		const char *outer = conf->text[CONF_LISTEN].items[texts[ahead ? i : last]];
		const char *inner = conf->text[CONF_LISTEN].items[texts[ahead ? last : i]];

		if (!ahead && !entry_covers(b, a))
			continue;
		snprintf(why, sizeof(why), twice ? "the same as %s, listed before; once is enough"
		                                 : "included in %s on the same port; list one of them",
		         quote_string(shown, outer));
		reader_error_text(reader, CONF_LISTEN, inner, why);
		return;
	}
}

void listen_read(struct reader *reader)
{
	struct conf *conf = reader->conf;
	const struct conf_strings *strings = &conf->text[CONF_LISTEN];
	size_t *texts; /* index of the string of each entry */
	const char *why;

	reader_copy_list(reader, CONF_LISTEN);
	if (strings->count == 0) {
		reader_error(reader, CONF_LISTEN,
		             "the list is empty; it must hold \"*\" or an address at least");
		return;
	}
	conf->listen = calloc(strings->count, sizeof(*conf->listen));
	texts = calloc(strings->count, sizeof(*texts));
	if (!conf->listen || !texts)
		reader->diag->oom = true;
	for (size_t i = 0; conf->listen && texts && strings->items[i]; i++) {
		struct conf_listen *entry = &conf->listen[conf->listen_count];

		*entry = (struct conf_listen) { 0 };
		if (reader_find_control(reader, CONF_LISTEN, strings->items[i]))
			continue;
		if (entry_parse(entry, strings->items[i], conf->port, &why) < 0) {
			reader_error_text(reader, CONF_LISTEN, strings->items[i], why);
			continue;
		}
		texts[conf->listen_count++] = i;
		if (!reader->keys[CONF_PORT].invalid)
			check_overlap(reader, texts);
	}
	free(texts);
}
