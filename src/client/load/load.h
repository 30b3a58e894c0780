/* load.h - how fast a server answers
 *
 * Main thread. Opens the connections, has threads drive them, prints the report. Returns an enum outcome.
 */
#ifndef ECHOD_CLIENT_LOAD_H
#define ECHOD_CLIENT_LOAD_H

struct client_options;
struct target;

int load(const struct client_options *options, const struct target *target);

#endif
