/* SPDX-License-Identifier: ISC */
/* test_addr.c - socket addresses: parse, print, compare */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "net/peer.h"

/* Each text, with port 7 where it has none, is printed as `printed`. */
static void reads_and_prints(void **state)
{
	static const struct {
		const char *text, *printed;
		int family;
		uint16_t port;
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1:7", AF_INET, 7 },
		{ "127.0.0.1:7007", "127.0.0.1:7007", AF_INET, 7007 },
		{ "0.0.0.0:65535", "0.0.0.0:65535", AF_INET, 65535 },
		{ "2001:db8::7", "[2001:db8::7]:7", AF_INET6, 7 },
		{ "2001:DB8:0:0:0:0:0:7", "[2001:db8::7]:7", AF_INET6, 7 },
		{ "[::1]:7007", "[::1]:7007", AF_INET6, 7007 },
		{ "[::1]", "[::1]:7", AF_INET6, 7 },
		{ "::", "[::]:7", AF_INET6, 7 },
		{ "2001:db8::1:7007", "[2001:db8::1:7007]:7", AF_INET6, 7 },
		{ "fe80::1%lo", "[fe80::1%lo]:7", AF_INET6, 7 },
		{ "[fe80::1%lo]:1", "[fe80::1%lo]:1", AF_INET6, 1 },
		{ "fe80::1%1", "[fe80::1%lo]:7", AF_INET6, 7 },
		{ "::ffff:192.0.2.1", "192.0.2.1:7", AF_INET, 7 },
		{ "[::ffff:192.0.2.1]:9", "192.0.2.1:9", AF_INET, 9 },
		{ "unix:/run/echod/echod.sock", "unix:/run/echod/echod.sock", AF_UNIX, 0 },
		{ "unix:/with:colon", "unix:/with:colon", AF_UNIX, 0 },
		{ "unix:@name", "unix:@name", AF_UNIX, 0 },
		{ "unix:@@with/:7", "unix:@@with/:7", AF_UNIX, 0 },
	};
	char text[ADDR_TEXT_MAX];

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct addr addr, again;
		const char *why;

		assert_int_equal(addr_parse(&addr, cases[i].text, 7, &why), 0);
		assert_int_equal(addr.sa.sa_family, cases[i].family);
		assert_int_equal(addr_port(&addr), cases[i].port);
		assert_string_equal(addr_print(&addr, text), cases[i].printed);
		/* The printed text gives the same address. */
		assert_int_equal(addr_parse(&again, text, 1, &why), 0);
		assert_true(addr_equal(&addr, &again));
		assert_int_equal(addr.len, again.len);
		/* a path has its NUL, an abstract name has none (unix(7)) */
		if (addr.sa.sa_family == AF_UNIX)
			assert_int_equal(addr.len, offsetof(struct sockaddr_un, sun_path) + strlen(text) - 5 +
			                                   (text[5] == '/'));
	}
}

static void refuses_other_forms(void **state)
{
	static const char *const wrong[] = {
		"",
		" ",
		"*",
		"localhost",
		"192.0.2",
		"192.0.2.1.1",
		"192.0.2.256",
		"192.0.2.01",
		" 192.0.2.1",
		"192.0.2.1 ",
		"192.0.2.1:",
		"192.0.2.1:0",
		"192.0.2.1:07",
		"192.0.2.1:65536",
		"192.0.2.1:+7",
		"192.0.2.1:7x",
		"192.0.2.1:99999999999999999999",
		"192.0.2.1:-1",
		":7",
		":",
		"192.0.2.1/24",
		"[",
		"[]",
		"[]:7",
		"[::1",
		"[::1]7",
		"[::1]:",
		"[::1]:0",
		"[192.0.2.1]",
		"[192.0.2.1]:7",
		"2001:db8::g",
		"::1%",
		"::1%name/with/slash",
		"::1%name of",
		"::1%.",
		"::1%..",
		"fe80::1%sixteen-letters-",
		"[1111:2222:3333:4444:5555:6666:255.255.255.255%sixteen-letters-]",
		"fe80::1",
		"[fe80::1]:7",
		"fe80::1%0",
		"fe80::1%01",
		"fe80::1%4294967297",
		"[::1]:7]",
		"[[::1]]:7",
		"unix:",
		"unix:relative",
		"unix:@",
		"unix:@a\nb",
		"unix:@a\x7f",
		"UNIX:/x",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct addr addr;
		const char *why = NULL;

		if (addr_parse(&addr, wrong[i], 7, &why) != -EINVAL)
			fail_msg("\"%s\" is accepted as an address", wrong[i]);
		assert_non_null(why);
	}
}

static void reports_missing_interfaces(void **state)
{
	static const char *const texts[] = {
		"fe80::1%no-such-one", "[fe80::1%no-such-one]:9", "2001:db8::1%no-such-one", "fe80::1%x",
		/* the longest text before a port */
		"[1111:2222:3333:4444:5555:6666:255.255.255.255%fifteen-letters]"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct addr addr;
		const char *why = NULL;

		assert_int_equal(addr_parse(&addr, texts[i], 7, &why), -ENODEV);
		assert_non_null(why);
		assert_int_equal(addr.in6.sin6_scope_id, 0);
		assert_int_equal(addr_port(&addr), i == 1 ? 9 : 7);
	}
}

static void reports_that_names_are_not_accepted(void **state)
{
	static const char *const names[] = { "eth0",          "localhost",       "localhost:7", "a",
		                             "[localhost]:7", "www.example.org", "wlp3s0" };
	struct addr addr;
	const char *why;

	(void) state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(addr_parse(&addr, names[i], 7, &why), -EINVAL);
		assert_non_null(strstr(why, "names of hosts and of interfaces are not accepted"));
	}
	assert_int_equal(addr_parse(&addr, "192.0.2.256", 7, &why), -EINVAL);
	assert_null(strstr(why, "names"));
}

static void paths_have_a_maximum_length(void **state)
{
	char text[sizeof(((struct sockaddr_un *) NULL)->sun_path) + 6], printed[ADDR_TEXT_MAX];
	struct addr addr;
	const char *why;

	(void) state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "unix:/", 6);
	text[sizeof(text) - 1] = '\0'; /* one byte too long */
	assert_true(addr_parse(&addr, text, 7, &why) < 0);
	text[sizeof(text) - 2] = '\0';
	assert_int_equal(addr_parse(&addr, text, 7, &why), 0);
	assert_string_equal(addr_print(&addr, printed), text);
	assert_false(addr_is_abstract(&addr));
}

/* 107 bytes, which with the NUL before them fill the array. */
static void abstract_names_have_a_maximum_length(void **state)
{
	char text[sizeof(((struct sockaddr_un *) NULL)->sun_path) + 7], printed[ADDR_TEXT_MAX];
	struct addr addr;
	const char *why;

	(void) state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "unix:@", 6);
	text[sizeof(text) - 1] = '\0'; /* one byte too long */
	assert_int_equal(addr_parse(&addr, text, 7, &why), -EINVAL);
	assert_non_null(strstr(why, "107"));
	text[sizeof(text) - 2] = '\0';
	assert_int_equal(addr_parse(&addr, text, 7, &why), 0);
	assert_int_equal(addr.len, sizeof(addr.un));
	assert_true(addr_is_abstract(&addr));
	assert_string_equal(addr_print(&addr, printed), text);
}

/* All bits of the context identifier and of the port of a vsock address are compared. */
static void prints_and_compares_vsock(void **state)
{
	struct addr addr = { .vm = { .svm_family = AF_VSOCK, .svm_cid = 3, .svm_port = UINT32_MAX },
		             .len = sizeof(addr.vm) };
	struct addr other = addr, back;
	char text[ADDR_TEXT_MAX];
	struct peer peer;

	(void) state;
	assert_string_equal(addr_print(&addr, text), "vsock:3:4294967295");
	assert_true(addr_equal(&addr, &other));
	other.vm.svm_port = 7;
	assert_false(addr_equal(&addr, &other));
	other.vm.svm_cid = 4;
	other.vm.svm_port = UINT32_MAX;
	assert_false(addr_equal(&addr, &other));
	peer_from_addr(&peer, &addr);
	peer_to_addr(&peer, &back);
	assert_true(addr_equal(&addr, &back));
	assert_int_equal(back.len, sizeof(addr.vm));
}

/* `addr` and `expected` give the same peer, whatever its memory contained before. */
static void expect_peer(const struct addr *addr, const struct addr *expected)
{
	struct peer peer, same;
	struct addr back, again;

	memset(&peer, 0x55, sizeof peer);
	memset(&same, 0xaa, sizeof same);
	peer_from_addr(&peer, addr);
	peer_from_addr(&same, expected);
	assert_memory_equal(&peer, &same, sizeof peer);
	memset(&back, 0x55, sizeof back);
	memset(&again, 0xaa, sizeof again);
	peer_to_addr(&peer, &back);
	peer_to_addr(&same, &again);
	assert_memory_equal(&back, &again, sizeof back);
	assert_int_equal(back.sa.sa_family, expected->sa.sa_family);
	assert_int_equal(back.len, expected->len);
}

/* Equal addresses give peers of equal bytes; unknown or empty ones give that of an unnamed unix socket. */
static void peers_are_comparable(void **state)
{
	const struct addr none = { .in = { .sin_family = AF_INET, .sin_port = 7 }, .len = 0 },
			  other = { .sa = { .sa_family = AF_APPLETALK }, .len = sizeof(struct sockaddr) },
			  unnamed = { .un = { .sun_family = AF_UNIX }, .len = sizeof(sa_family_t) };
	struct addr v4, v6, mapped, back;
	struct peer peer;
	const char *why;

	(void) state;
	assert_int_equal(addr_parse(&v4, "192.0.2.1:4711", 7, &why), 0);
	assert_int_equal(addr_parse(&v6, "[2001:db8::1]:4711", 7, &why), 0);
	mapped = (struct addr) { .in6 = v6.in6, .len = v6.len };
	memcpy(&mapped.in6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16);
	v6.in6.sin6_scope_id = 3;
	expect_peer(&v4, &v4);
	expect_peer(&v6, &v6);
	expect_peer(&mapped, &v4);
	expect_peer(&none, &unnamed);
	expect_peer(&other, &unnamed);
	expect_peer(&unnamed, &unnamed);
	/* the rest is 0 */
	peer_from_addr(&peer, &v4);
	assert_int_equal(peer.address[15], 0);
	assert_int_equal(peer.scope, 0);
	peer_from_addr(&peer, &v6);
	peer_to_addr(&peer, &back);
	assert_int_equal(back.in6.sin6_flowinfo, 0);
}

/* The kernel binds the parsed address, and reports the same address. */
static void binds_an_abstract_name(void **state)
{
	struct addr addr, bound = { .len = sizeof(bound.un) };
	char name[64], text[ADDR_TEXT_MAX];
	const char *why;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void) state;
	snprintf(name, sizeof(name), "unix:@echod-test-%d", (int) getpid());
	assert_int_equal(addr_parse(&addr, name, 7, &why), 0);
	assert_int_equal(bind(fd, &addr.sa, addr.len), 0);
	assert_int_equal(getsockname(fd, &bound.sa, &bound.len), 0);
	assert_true(addr_equal(&addr, &bound));
	assert_string_equal(addr_print(&bound, text), name);
	close(fd);
}

/* Peers are printed as the kernel reports them: unnamed, abstract, a path without its NUL. */
static void prints_what_the_kernel_reports(void **state)
{
	struct addr addr = { .un.sun_family = AF_UNIX };
	char text[ADDR_TEXT_MAX];

	(void) state;
	addr.len = sizeof(addr.un.sun_family);
	assert_string_equal(addr_print(&addr, text), "unix:");
	assert_false(addr_is_abstract(&addr));

	addr.len = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1);
	assert_string_equal(addr_print(&addr, text), "unix:@");
	assert_true(addr_is_abstract(&addr));

	memcpy(addr.un.sun_path, "\0name", 5);
	addr.len = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 5);
	assert_string_equal(addr_print(&addr, text), "unix:@name");

	memcpy(addr.un.sun_path, "\0a\0\0b", 5);
	assert_string_equal(addr_print(&addr, text), "unix:@a@@b");

	memset(addr.un.sun_path, 'p', sizeof(addr.un.sun_path));
	addr.len = sizeof(addr.un);
	addr_print(&addr, text);
	assert_int_equal(strlen(text), 5 + sizeof(addr.un.sun_path));

	addr = (struct addr) { .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(9) },
		               .len = sizeof(addr.in6) };
	assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &addr.in6.sin6_addr), 1);
	assert_string_equal(addr_print(&addr, text), "192.0.2.1:9");
	assert_int_equal(addr.sa.sa_family, AF_INET6);
	assert_false(addr_is_abstract(&addr));

	assert_int_equal(inet_pton(AF_INET6, "fe80::1", &addr.in6.sin6_addr), 1);
	addr.in6.sin6_scope_id = 4000000000U; /* no such interface: its number is shown */
	assert_string_equal(addr_print(&addr, text), "[fe80::1%4000000000]:9");
}

/* Names of interfaces come from the given socket; the number is printed where it does not give one. */
static void prints_interfaces_of_a_socket(void **state)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), input = dup(0), pair[2];
	char text[ADDR_TEXT_MAX];
	struct addr addr;
	const char *why;

	(void) state;
	assert_int_equal(addr_parse(&addr, "fe80::1%lo", 7, &why), 0);
	addr_use_socket(fd);
	assert_string_equal(addr_print(&addr, text), "[fe80::1%lo]:7");
	assert_int_equal(pipe(pair), 0);
	/* descriptor 0, as in a daemon that was started without standard input */
	assert_int_equal(dup2(pair[0], 0), 0);
	addr_use_socket(0);
	assert_string_equal(addr_print(&addr, text), "[fe80::1%1]:7");
	addr_use_socket(-1);
	dup2(input, 0);
	close(input);
	assert_string_equal(addr_print(&addr, text), "[fe80::1%lo]:7");
	close(fd);
	close(pair[0]);
	close(pair[1]);
}

static void unmaps_ipv4_addresses(void **state)
{
	struct addr addr = { .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(9) },
		             .len = sizeof(addr.in6) };
	struct addr plain, before;
	const char *why;

	(void) state;
	assert_int_equal(addr_parse(&plain, "192.0.2.1:9", 7, &why), 0);
	assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &addr.in6.sin6_addr), 1);
	assert_false(addr_equal(&addr, &plain));
	addr_unmap(&addr);
	assert_true(addr_equal(&addr, &plain));
	assert_int_equal(addr.len, sizeof(struct sockaddr_in));

	before = addr;
	addr_unmap(&addr);
	assert_memory_equal(&addr, &before, sizeof(addr));
	assert_int_equal(addr_parse(&addr, "2001:db8::1", 7, &why), 0);
	before = addr;
	addr_unmap(&addr);
	assert_memory_equal(&addr, &before, sizeof(addr));
}

static void compares_addresses(void **state)
{
	static const char *const different[] = {
		"192.0.2.1:7",     "192.0.2.1:8",     "192.0.2.2:7",   "[2001:db8::1]:7",
		"[2001:db8::1]:8", "[2001:db8::2]:7", "[fe80::1%1]:7", "[fe80::1%2]:7",
		"unix:/a",         "unix:/b",         "unix:/aa",
	};
	enum { COUNT = sizeof(different) / sizeof(different[0]) };
	struct addr addrs[COUNT];
	const char *why;

	(void) state;
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(addr_parse(&addrs[i], different[i], 1, &why), 0);
	for (size_t i = 0; i < COUNT; i++) {
		for (size_t j = 0; j < COUNT; j++)
			assert_int_equal(addr_equal(&addrs[i], &addrs[j]), i == j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_prints),
		cmocka_unit_test(refuses_other_forms),
		cmocka_unit_test(reports_missing_interfaces),
		cmocka_unit_test(reports_that_names_are_not_accepted),
		cmocka_unit_test(paths_have_a_maximum_length),
		cmocka_unit_test(abstract_names_have_a_maximum_length),
		cmocka_unit_test(binds_an_abstract_name),
		cmocka_unit_test(prints_and_compares_vsock),
		cmocka_unit_test(peers_are_comparable),
		cmocka_unit_test(prints_what_the_kernel_reports),
		cmocka_unit_test(prints_interfaces_of_a_socket),
		cmocka_unit_test(unmaps_ipv4_addresses),
		cmocka_unit_test(compares_addresses),
	};

	return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
