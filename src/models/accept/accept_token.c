/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "models/accept/accept_token.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct accept_token {
	_Atomic unsigned holder;
	struct accept_batch batch;
	unsigned loops;
	int fds[];
};

int accept_token_make(struct accept_token **result, unsigned loops)
{
	struct accept_token *token = calloc(1, sizeof *token + loops * sizeof token->fds[0]);

	if (!token)
		return -ENOMEM;
	token->batch.size = 1;
	for (; token->loops < loops; token->loops++) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd < 0) {
			int error = errno;

			accept_token_free(token);
			return -error;
		}
		token->fds[token->loops] = fd;
	}
	*result = token;
	return 0;
}

void accept_token_free(struct accept_token *token)
{
	if (!token)
		return;
	for (unsigned i = 0; i < token->loops; i++)
		close(token->fds[i]);
	free(token);
}

int accept_token_fd(const struct accept_token *token, unsigned loop)
{
	return token->fds[loop];
}

bool accept_token_held(const struct accept_token *token, unsigned loop)
{
	return atomic_load(&token->holder) == loop;
}

void accept_token_clear(const struct accept_token *token, unsigned loop)
{
	uint64_t count;

	/* EAGAIN: not readable */
	if (read(token->fds[loop], &count, sizeof count) < 0)
		return;
}

struct accept_batch *accept_token_batch(struct accept_token *token)
{
	return &token->batch;
}

void accept_token_pass(struct accept_token *token, unsigned loop)
{
	unsigned next = (loop + 1) % token->loops;
	uint64_t one = 1;

	atomic_store(&token->holder, next);
	/* EAGAIN: already readable */
	if (write(token->fds[next], &one, sizeof one) < 0)
		return;
}
