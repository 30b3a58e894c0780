/* main.c - echoc: arguments, then talk, ping or load */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/load/load.h"
#include "client/options.h"
#include "client/ping/ping.h"
#include "client/talk/talk.h"

/* Of 0, 1 and 2, one that we were started without would be given to a socket, which would then be read as the input
 * or written to as the output. Occupied by what cannot be read, or written, it fails as a closed one should. */
static void descriptors_occupy(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		/* cppcheck-suppress leakReturnValNotUsed ; it is to stay open, and as `fd` */
		if (fcntl(fd, F_GETFD) < 0
		    && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return; /* without /dev/null it must do as it is */
}

/* What was printed must have got through: a summary that is lost is no success. Returns the outcome to end with. */
static int output_end(int outcome)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return outcome;
	fprintf(stderr, "echoc: standard output: %s\n",
		errno != 0 ? strerror(errno) : "not all could be written");
	return outcome == OUTCOME_OK ? OUTCOME_DIFFERS : outcome;
}

int main(int argc, char *argv[])
{
	struct client_options options;
	struct target target;
	char why[TARGET_WHY_MAX];
	int status;

	descriptors_occupy();
	status = client_options_parse(&options, argc, argv);
	if (status >= 0)
		return output_end(status);
	status = target_find(&target, &options.sockopts, options.host, options.port, why);
	if (status < 0) {
		fprintf(stderr, "echoc: %s\n", why);
		return status == -EINVAL ? OUTCOME_USAGE : OUTCOME_UNREACHED;
	}
	/* Only now: the resolver goes on waiting whatever signals are caught, and there is nothing yet to report. */
	interrupt_init();
	switch (options.activity) {
	case ACTIVITY_TALK:
		status = talk(&options, &target);
		break;
	case ACTIVITY_PING:
		status = ping(&options, &target);
		break;
	case ACTIVITY_LOAD:
		status = load(&options, &target);
		break;
	}
	target_clear(&target);
	return output_end(status);
}
