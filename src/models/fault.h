/* fault.h - fault points that tests turn
 *
 * Numbers that a test may set in the environment, in builds configured with
 * --enable-debug-faults; elsewhere each is the constant it stands for.
 */
#ifndef ECHOD_MODELS_FAULT_H
#define ECHOD_MODELS_FAULT_H

#include <stdint.h>

#ifdef ECHOD_FAULTS
#include <stdlib.h>

static inline uint64_t fault_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}
#else
#define fault_number(name, otherwise) (otherwise)
#endif

#endif
