/* filter_datagram.c - see filter.h; the datagram half */
#include <config.h>

#include <stdio.h>

#include "client/filter.h"
#include "client/options.h"

int filter_datagram(const struct options *options, const struct target *target, int net)
{
	(void) options;
	(void) target;
	(void) net;
	fprintf(stderr, "echoc: talking over UDP is not written yet\n");
	return OUTCOME_USAGE;
}
