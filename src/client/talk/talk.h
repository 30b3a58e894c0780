/* SPDX-License-Identifier: ISC */
/* talk.h - send typed or piped data to the server and print what comes back
 *
 * Main thread. Errors have been printed when it returns.
 */
#ifndef ECHOD_CLIENT_TALK_H
#define ECHOD_CLIENT_TALK_H

#include "client/error.h"

struct client_options;
struct target;

/* Line by line with line editing if both standard input and output are terminals; otherwise as a filter. */
enum outcome talk(const struct client_options *options, const struct target *target);

#endif
