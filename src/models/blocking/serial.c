/* SPDX-License-Identifier: ISC */
/* serial.c - the body of iterative, prefork and prethread: take one connection, serve it to its end,
 * repeat */
#include <config.h>

#include "models/blocking/acceptor.h"
#include "models/model.h"
#include "models/blocking/serve.h"

int serial_run(struct worker *worker)
{
	struct acceptor acceptor = { .poller = NULL };
	struct new_conn new_conn;
	struct session_io io;
	int r = serve_io_open(&io, worker);

	if (r < 0)
		return r;
	r = acceptor_open(&acceptor, worker, -1);
	if (r == 0)
		worker_ready(worker);
	while (r == 0 && !acceptor.stopping) {
		r = acceptor_wait(&acceptor, &new_conn);
		if (r == 1) {
			(void) serve(worker, &io, &new_conn);
			r = 0;
		}
	}
	acceptor_close(&acceptor);
	session_io_close(&io);
	return r;
}
