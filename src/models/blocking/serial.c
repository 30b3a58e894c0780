/* serial.c - the body of iterative, prefork and prethread: take one connection, serve it to its
 * end, repeat */
#include <config.h>

#include "models/blocking/acceptor.h"
#include "models/model.h"
#include "models/blocking/serve.h"

int serial_run(struct worker *worker)
{
	struct acceptor acceptor = { .ready = NULL };
	struct arrival arrival;
	struct turn turn;
	int r = serve_turn_open(&turn, worker);

	if (r < 0)
		return r;
	r = acceptor_open(&acceptor, worker, -1);
	if (r == 0)
		worker_ready(worker);
	while (r == 0 && !acceptor.stopping) {
		r = acceptor_wait(&acceptor, &arrival);
		if (r == 1) {
			serve(worker, &turn, &arrival);
			r = 0;
		}
	}
	acceptor_close(&acceptor);
	turn_close(&turn);
	return r;
}
