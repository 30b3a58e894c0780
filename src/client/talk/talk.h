/* talk.h - what is typed or piped in goes through the server and back
 *
 * Main thread. Returns an enum outcome; has said what went wrong.
 */
#ifndef ECHOD_CLIENT_TALK_H
#define ECHOD_CLIENT_TALK_H

struct client_options;
struct target;

/* Line by line with editing where both ends are a terminal, as a filter otherwise. */
int talk(const struct client_options *options, const struct target *target);

#endif
