/* ping.h - round-trip times, one probe after the other
 *
 * Main thread. Returns an enum outcome; has said what went wrong.
 */
#ifndef ECHOD_CLIENT_PING_H
#define ECHOD_CLIENT_PING_H

struct client_options;
struct target;

int ping(const struct client_options *options, const struct target *target);

#endif
