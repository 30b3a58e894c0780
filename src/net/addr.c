/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "net/addr.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/decimal.h"

static const char *const why_form =
	"an address is written \"192.0.2.1\", \"192.0.2.1:7007\", \"2001:db8::7\", \"[2001:db8::7]:7007\", "
	"\"unix:/absolute/path\" or \"unix:@abstract-name\"";
static const char *const why_name = "names of hosts and of interfaces are not accepted; an address is "
                                    "written \"192.0.2.1\", \"192.0.2.1:7007\", \"2001:db8::7\", "
                                    "\"[2001:db8::7]:7007\", \"fe80::1%eth0\", \"unix:/absolute/path\" or "
                                    "\"unix:@abstract-name\"";
static const char *const why_port = "a port is a number from 1 to 65535, in decimal without leading zeros";
static const char *const why_path = "\"unix:\" is followed by an absolute path of at most 107 bytes, or by "
                                    "\"@\" and a name of 1 to 107 bytes without control characters";
static const char *const why_scope = "the part after \"%\" is the name of an interface, of 1 to 15 bytes "
                                     "without spaces, \"/\" and \":\", or its number";
static const char *const why_interface = "there is no such interface";
static const char *const why_link =
	"a link-local address needs its interface, as in \"fe80::1%eth0\"";

static int refuse(const char **why, const char *sentence)
{
	*why = sentence;
	return -EINVAL;
}

/* A number from 1 to `max`; 0 for any other text. */
static uint32_t positive(const char *text, uint32_t max)
{
	uint64_t value;

	return decimal_parse(text, max, &value) == 0 ? (uint32_t) value : 0;
}

/* Whether `name`, without its "@", can be an abstract name. */
static bool is_abstract_name(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length >= sizeof(((struct sockaddr_un *) NULL)->sun_path))
		return false;
	for (; *name; name++)
		if (iscntrl((unsigned char) *name))
			return false;
	return true;
}

static int parse_unix(struct addr *addr, const char *path, const char **why)
{
	size_t length = strlen(path);
	bool abstract = path[0] == '@';

	if (abstract ? !is_abstract_name(path + 1) : path[0] != '/' || length >= sizeof(addr->un.sun_path))
		return refuse(why, why_path);
	addr->un.sun_family = AF_UNIX;
	memcpy(addr->un.sun_path, path, length);
	/* the length of an abstract address ends its name; the byte before the name is NUL */
	if (abstract)
		addr->un.sun_path[0] = '\0';
	addr->len = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length + (abstract ? 0 : 1));
	return 0;
}

/* Whether `text` can be the name of an interface: neither a number nor empty. */
static bool is_interface_name(const char *text)
{
	size_t length = strlen(text);

	return length < IF_NAMESIZE && strcmp(text, ".") != 0 && strcmp(text, "..") != 0 &&
	       length == strcspn(text, " \t\n\v\f\r/:%") && length != strspn(text, "0123456789");
}

/* The error sentence for a text that is not an address; addresses consist of `characters`. */
static const char *why_no_address(const char *text, const char *characters)
{
	text += strspn(text, characters);
	return isalpha((unsigned char) *text) ? why_name : why_form;
}

static int parse_in(struct addr *addr, const char *host, uint16_t port, const char **why)
{
	addr->in.sin_family = AF_INET;
	addr->in.sin_port = htons(port);
	addr->len = sizeof(addr->in);
	return inet_pton(AF_INET, host, &addr->in.sin_addr) == 1 ? 0
	                                                         : refuse(why, why_no_address(host, "01234567"
	                                                                                            "89."));
}

static int parse_in6(struct addr *addr, char *host, uint16_t port, const char **why)
{
	char *scope = strchr(host, '%');

	if (scope)
		*scope++ = '\0';
	addr->in6.sin6_family = AF_INET6;
	addr->in6.sin6_port = htons(port);
	addr->len = sizeof(addr->in6);
	if (inet_pton(AF_INET6, host, &addr->in6.sin6_addr) != 1)
		return refuse(why, why_no_address(host, "0123456789abcdefABCDEF:."));
	if (scope) {
		addr->in6.sin6_scope_id = if_nametoindex(scope);
		if (addr->in6.sin6_scope_id == 0)
			addr->in6.sin6_scope_id = (uint32_t) positive(scope, UINT32_MAX);
		if (addr->in6.sin6_scope_id == 0) {
			*why = is_interface_name(scope) ? why_interface : why_scope;
			return *why == why_interface ? -ENODEV : -EINVAL;
		}
	} else if (IN6_IS_ADDR_LINKLOCAL(&addr->in6.sin6_addr)) {
		return refuse(why, why_link);
	}
	addr_unmap(addr);
	return 0;
}

int addr_parse(struct addr *addr, const char *text, uint16_t port, const char **why)
{
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE]; /* both have space for one NUL: here "%" and NUL */
	const char *first_colon = strchr(text, ':'), *colon = strrchr(text, ':');
	size_t length = strlen(text);
	bool bracket = text[0] == '[';

	*why = NULL;
	memset(addr, 0, sizeof(*addr));
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(addr, text + 5, why);

	/* The colon before a port is the one after "]", or the only one in the text. */
	if (bracket) {
		const char *close = strchr(text, ']');

		if (!close || (close[1] != '\0' && close[1] != ':'))
			return refuse(why, why_form);
		text++;
		length = (size_t) (close - text);
		colon = close[1] == ':' ? close + 1 : NULL;
	} else if (colon && colon == first_colon) {
		length = (size_t) (colon - text);
	} else {
		colon = NULL;
	}
	if (length >= sizeof(host))
		return refuse(why, why_form);
	memcpy(host, text, length);
	host[length] = '\0';

	if (colon) {
		port = (uint16_t) positive(colon + 1, UINT16_MAX);
		if (port == 0)
			return refuse(why, why_port);
	}
	return bracket || strchr(host, ':') ? parse_in6(addr, host, port, why)
	                                    : parse_in(addr, host, port, why);
}

static char *print_unix(const struct sockaddr_un *un, socklen_t len, char *text)
{
	size_t start = offsetof(struct sockaddr_un, sun_path);
	size_t length = len > start ? len - start : 0;

	/* Linux may report a path that fills the array without its NUL */
	if (length == 0 || un->sun_path[0] != '\0') {
		snprintf(text, ADDR_TEXT_MAX, "unix:%.*s", (int) length, un->sun_path);
		return text;
	}
	text += snprintf(text, ADDR_TEXT_MAX, "unix:");
	text[length] = '\0';
	for (size_t i = 0; i < length; i++)
		text[i] = un->sun_path[i] == '\0' ? '@' : un->sun_path[i];
	return text - strlen("unix:");
}

static int names_socket = -1;

void addr_use_socket(int fd)
{
	names_socket = fd;
}

/* Print the name of an interface, or its number where it has none. if_indextoname(3) would make a socket for
 * each call. */
static void print_interface(uint32_t index, char name[static IF_NAMESIZE])
{
	struct ifreq request = { .ifr_ifindex = (int) index };

	if (names_socket < 0 ? if_indextoname(index, request.ifr_name) != NULL
	                     : ioctl(names_socket, SIOCGIFNAME, &request) == 0)
		memcpy(name, request.ifr_name, IF_NAMESIZE);
	else
		snprintf(name, IF_NAMESIZE, "%u", index);
}

char *addr_print(const struct addr *addr, char text[static ADDR_TEXT_MAX])
{
	struct addr plain = *addr;
	char host[INET6_ADDRSTRLEN], scope[IF_NAMESIZE + 1] = "";

	addr_unmap(&plain);
	switch (plain.sa.sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &plain.in.sin_addr, host, sizeof(host));
		snprintf(text, ADDR_TEXT_MAX, "%s:%u", host, addr_port(&plain));
		return text;
	case AF_INET6:
		inet_ntop(AF_INET6, &plain.in6.sin6_addr, host, sizeof(host));
		if (plain.in6.sin6_scope_id != 0) {
			scope[0] = '%';
			print_interface(plain.in6.sin6_scope_id, scope + 1);
		}
		snprintf(text, ADDR_TEXT_MAX, "[%s%s]:%u", host, scope, addr_port(&plain));
		return text;
	case AF_VSOCK:
		snprintf(text, ADDR_TEXT_MAX, "vsock:%u:%u", plain.vm.svm_cid, plain.vm.svm_port);
		return text;
	default:
		return print_unix(&plain.un, plain.len, text);
	}
}

void addr_unmap(struct addr *addr)
{
	struct sockaddr_in in = { .sin_family = AF_INET };

	if (addr->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr))
		return;
	in.sin_port = addr->in6.sin6_port;
	memcpy(&in.sin_addr, addr->in6.sin6_addr.s6_addr + 12, sizeof(in.sin_addr));
	addr->in = in;
	addr->len = sizeof(addr->in);
}

bool addr_is_abstract(const struct addr *addr)
{
	return addr->sa.sa_family == AF_UNIX && addr->len > offsetof(struct sockaddr_un, sun_path) &&
	       addr->un.sun_path[0] == '\0';
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	switch (a->sa.sa_family) {
	case AF_INET:
		return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	case AF_INET6:
		return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
		       IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr);
	case AF_VSOCK:
		return a->vm.svm_cid == b->vm.svm_cid && a->vm.svm_port == b->vm.svm_port;
	default:
		return a->len == b->len && memcmp(&a->un, &b->un, a->len) == 0;
	}
}

uint16_t addr_port(const struct addr *addr)
{
	switch (addr->sa.sa_family) {
	case AF_INET:
		return ntohs(addr->in.sin_port);
	case AF_INET6:
		return ntohs(addr->in6.sin6_port);
	default:
		return 0;
	}
}
