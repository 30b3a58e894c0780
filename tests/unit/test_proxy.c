/* SPDX-License-Identifier: ISC */
/* test_proxy.c - PROXY protocol headers, versions 1 and 2 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "net/proxy.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TEXT(text) (const uint8_t *) (text), sizeof(text) - 1

/* Parse 0, 1, ... bytes. The first result that is not 0 must be that of all bytes. Returns it, or 0. */
static int parse_in_pieces(const uint8_t *data, size_t size, struct proxy_header *header)
{
	struct proxy_header whole;
	int r = proxy_parse(data, size, &whole), found = 0;

	for (size_t n = 0; n <= size; n++) {
		found = proxy_parse(data, n, header);
		if (found != 0) {
			assert_int_equal(found, r);
			break;
		}
	}
	assert_int_equal(found, r);
	if (r == 1) {
		assert_int_equal(header->length, whole.length);
		assert_int_equal(header->names_peer, whole.names_peer);
		assert_memory_equal(&header->peer, &whole.peer, sizeof whole.peer);
	}
	return r;
}

static void named(const uint8_t *data, size_t size, const char *text, size_t length)
{
	char printed[ADDR_TEXT_MAX];
	struct proxy_header header;
	struct addr addr;

	assert_int_equal(parse_in_pieces(data, size, &header), 1);
	assert_int_equal(header.length, length);
	assert_int_equal(header.names_peer, text != NULL);
	if (!text)
		return;
	peer_to_addr(&header.peer, &addr);
	assert_string_equal(addr_print(&addr, printed), text);
}

static void reads_version_1(void **state)
{
	(void) state;
	named(TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 4711 7\r\nhello"), "192.0.2.1:4711", 42);
	named(TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 0 65535\r\n"), "192.0.2.1:0", 43);
	named(TEXT("PROXY TCP6 2001:db8::1 ::1 65535 7\r\n"), "[2001:db8::1]:65535", 36);
	named(TEXT("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 7\r\n"), "192.0.2.1:1", 37);
	named(TEXT("PROXY UNKNOWN\r\n"), NULL, 15);
	named(TEXT("PROXY UNKNOWN anything else\r\n"), NULL, 29);
	/* the longest line */
	named(TEXT("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
	           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
	      NULL, 107);
}

static void reads_version_2(void **state)
{
	(void) state;
	named(TEXT(SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\1\2\3\4\x12\x67\0\7" "hello"), "192.0.2.1:4711", 28);
	named(TEXT(SIGNATURE "\x21\x11\xff\xff\xc0\0\2\1\1\2\3\4\x12\x67\0\7"), "192.0.2.1:4711", 16 + 65535);
	named(TEXT(SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0"
	                     "\0\0\1\0\1\0\2"),
	      "[2001:db8::1]:1", 52);
	named(TEXT(SIGNATURE "\x20\x11\0\x0c\xc0\0\2\1\1\2\3\4\x12\x67\0\7"), NULL, 28); /* LOCAL */
	named(TEXT(SIGNATURE "\x20\xff\0\0"), NULL, 16);
	named(TEXT(SIGNATURE "\x21\0\0\0"), NULL, 16);             /* UNSPEC */
	named(TEXT(SIGNATURE "\x21\x01\0\0"), NULL, 16);
	named(TEXT(SIGNATURE "\x21\x12\0\x0c"), NULL, 28);         /* datagrams */
	named(TEXT(SIGNATURE "\x21\x31\0\xd8"), NULL, 16 + 216);   /* unix */
}

static void refuses_invalid_headers(void **state)
{
#define WRONG(text) { text, sizeof(text) - 1 }
	static const struct {
		const char *data;
		size_t size;
	} wrong[] = {
		WRONG("x"),
		WRONG("PROXX"),
		WRONG("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
		WRONG("PROXY\r\n"),
		WRONG("PROXY \r\n"),
		WRONG("PROXY TCP4\r\n"),
		WRONG("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n"),
		WRONG("PROXY UNKNOWNX\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"),
		WRONG("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 ::1 1 2\r\n"),
		WRONG("PROXY TCP4 ::1 ::1 1 2\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 x 2\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 00 2\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"),
		WRONG("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n"),
		WRONG("PROXY TCP4 1.2.3.4 5.6.7.8 1: 2\r\n"),
		WRONG("PROXY TCP6 11111111111111111111111111111111111111111111111 ::1 1 2\r\n"),
		WRONG("\r\n\r\n\0\r\nQUIX"),
		WRONG(SIGNATURE "\x11"),
		WRONG(SIGNATURE "\x22"),
		WRONG(SIGNATURE "\x21\x41\0\x0c"),
		WRONG(SIGNATURE "\x21\x13\0\x0c"),
		WRONG(SIGNATURE "\x21\x11\0\x0b"),
		WRONG(SIGNATURE "\x21\x21\0\x23"),
		WRONG(SIGNATURE "\x21\x31\0\xd7"),
	};
	char line[PROXY_NEEDED_MAX] = "PROXY UNKNOWN ";
	struct proxy_header header;

	(void) state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(parse_in_pieces((const uint8_t *) wrong[i].data, wrong[i].size, &header),
		                 -EBADMSG);
	memset(line + 14, 'x', sizeof line - 14);
	assert_int_equal(proxy_parse((const uint8_t *) line, sizeof line - 1, &header), 0);
	assert_int_equal(proxy_parse((const uint8_t *) line, sizeof line, &header), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_version_1),
		cmocka_unit_test(reads_version_2),
		cmocka_unit_test(refuses_invalid_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
