/* main.c - echoc: arguments, then talk, ping or load */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/interrupt.h"
#include "client/load.h"
#include "client/options.h"
#include "client/ping.h"
#include "client/talk.h"

int main(int argc, char *argv[])
{
	struct options options;
	struct target target;
	char why[TARGET_WHY_MAX];
	int status;

	status = options_parse(&options, argc, argv);
	if (status >= 0)
		return fflush(stdout) == 0 ? status : EXIT_FAILURE;
	interrupt_init();
	status = target_find(&target, &options.wish, options.host, options.port, why);
	if (status < 0) {
		fprintf(stderr, "echoc: %s\n", why);
		return status == -EINVAL ? OUTCOME_USAGE : OUTCOME_UNREACHED;
	}
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
	return status;
}
