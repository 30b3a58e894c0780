/* SPDX-License-Identifier: ISC */
/* accept_token.h - which event loop of a process takes the next connections
 *
 * The loops of one process share the listeners and the queue of handed-over connections. One loop at a time
 * has the token and watches them; after a batch in which it took a connection it passes the token to the next
 * loop. So connections are spread evenly, also in a burst and after a reload, with every back-end: poll(2)
 * and select(2) have no exclusive wait, and EPOLLEXCLUSIVE (epoll_ctl(2)) prefers the loop that waited first.
 * No loop is woken for a connection that another loop takes, and no wake-up is lost, because a loop that
 * starts to watch finds connections that are already there.
 *
 * Memory of one process; made before its threads start. The functions may be called from any thread.
 */
#ifndef ECHOD_MODELS_ACCEPT_TOKEN_H
#define ECHOD_MODELS_ACCEPT_TOKEN_H

#include <stdbool.h>

struct accept_token;

/* Number of connections to accept from a listener in one iteration, see accept_adapt(). */
struct accept_batch {
	unsigned size;
	unsigned full; /* number of full batches since `size` changed */
};

/* Make the token of `loops` loops, numbered from 0, and give it to loop 0. Opens an eventfd(2) for each loop.
 * Returns 0 or -errno. */
int accept_token_make(struct accept_token **token, unsigned loops);

/* Free the token, which no loop may use any more. NULL is allowed. */
void accept_token_free(struct accept_token *token);

/* The eventfd that becomes readable when the token is passed to `loop`. */
int accept_token_fd(const struct accept_token *token, unsigned loop);

/* Whether `loop` holds the token. */
bool accept_token_held(const struct accept_token *token, unsigned loop);

/* Make accept_token_fd() unreadable again. */
void accept_token_clear(const struct accept_token *token, unsigned loop);

/* The batch size, shared by all loops: a loop with a larger one would get more connections than the others.
 * Only the holder of the token may use it. */
struct accept_batch *accept_token_batch(struct accept_token *token);

/* Pass the token from `loop`, which must have it, to the next loop. */
void accept_token_pass(struct accept_token *token, unsigned loop);

#endif
