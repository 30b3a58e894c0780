/* talk.c - see talk.h */
#include <config.h>

#include "client/talk.h"

#include <stdio.h>
#include <unistd.h>

#include "client/filter.h"
#include "client/options.h"

int talk(const struct options *options, const struct target *target)
{
	char why[TARGET_WHY_MAX];
	int net = target_connect(target, &options->wish, NULL, why), outcome;

	if (net < 0) {
		fprintf(stderr, "echoc: %s\n", why);
		return OUTCOME_UNREACHED;
	}
	outcome = options->udp ? filter_datagram(options, target, net) : filter_stream(options, target, net);
	close(net);
	return outcome;
}
