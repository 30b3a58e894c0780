/* filter.h - standard input through the server to standard output, every byte compared
 *
 * Main thread. Both return an enum outcome and have said what went wrong; `net` stays the caller's.
 */
#ifndef ECHOD_CLIENT_FILTER_H
#define ECHOD_CLIENT_FILTER_H

struct client_options;
struct target;

/* Over the connected stream socket `net` (non-blocking), full duplex: never waits for one direction
 * with the other at a standstill. What was sent is kept until it came back, in a buffer that grows only
 * where a server holds back more than a megabyte before it answers. */
int filter_stream(const struct client_options *options, const struct target *target, int net);

/* Over the connected datagram socket `net`: one datagram at a time, sent again when it was lost,
 * so that the copy is exact here too. */
int filter_datagram(const struct client_options *options, const struct target *target, int net);

#endif
