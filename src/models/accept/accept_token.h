/* SPDX-License-Identifier: ISC */
/* accept_token.h - which event loop of a process takes the next connections
 *
 * The loops of one process share the listeners and the queue of handed-over connections. One loop at a time holds the
 * token and watches them; after a batch that took something it passes the token on to the next loop. So connections are
 * spread evenly, also in a burst and after a reload, whatever the back-end waits with: poll(2) and select(2) have no
 * exclusive wait, and EPOLLEXCLUSIVE (epoll_ctl(2)) prefers the loop that waited first. No loop is woken for a
 * connection that another loop gets, and no wake-up can be lost, because a loop that starts to watch finds what is
 * ready already.
 *
 * Memory of one process; made before its threads start. The functions may be called from any thread.
 */
#ifndef ECHOD_MODELS_ACCEPT_TOKEN_H
#define ECHOD_MODELS_ACCEPT_TOKEN_H

#include <stdbool.h>

struct accept_token;

/* How many connections to ask a listener for in one iteration, see accept_adapt(). */
struct accept_batch {
	unsigned size;
	unsigned full; /* iterations since `size` changed in which as many connections were there */
};

/* Make the token of `loops` loops, numbered from 0, and give it to loop 0. Opens an eventfd(2) for each loop. Returns 0
 * or -errno. */
int accept_token_make(struct accept_token **token, unsigned loops);

/* Free it; no loop may use it any more. NULL is fine. */
void accept_token_free(struct accept_token *token);

/* The eventfd that becomes readable when the token is passed to `loop`. */
int accept_token_fd(const struct accept_token *token, unsigned loop);

/* Whether `loop` holds the token. */
bool accept_token_held(const struct accept_token *token, unsigned loop);

/* Make accept_token_fd() unreadable again. */
void accept_token_clear(const struct accept_token *token, unsigned loop);

/* The batch of all loops: one for all, or a loop with a larger one would get more connections than the others. Only
 * the holder of the token may use it. */
struct accept_batch *accept_token_batch(struct accept_token *token);

/* `loop`, which must hold the token, gives it to the next loop. */
void accept_token_pass(struct accept_token *token, unsigned loop);

#endif
