/* ping.c - see ping.h */
#include <config.h>

#include "client/ping.h"

#include <stdio.h>

#include "client/options.h"

int ping(const struct options *options, const struct target *target)
{
	(void) options;
	(void) target;
	fprintf(stderr, "echoc: --ping is not written yet\n");
	return OUTCOME_USAGE;
}
