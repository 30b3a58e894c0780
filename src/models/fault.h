/* SPDX-License-Identifier: ISC */
/* fault.h - fault points for tests
 *
 * What a test sets in the environment, in builds configured with --enable-debug-faults. Elsewhere a
 * number is the constant it stands for, and nothing hangs.
 */
#ifndef ECHOD_MODELS_FAULT_H
#define ECHOD_MODELS_FAULT_H

#include <stdint.h>

#ifdef ECHOD_FAULTS
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/sandbox.h"

static inline uint64_t fault_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

/* Makes the system call that ECHOD_FAULT_SYSCALL names, or, if that is "all", each forbidden one, and logs what came of it. */
static inline void fault_try_forbidden(unsigned uses)
{
	const char *name = getenv("ECHOD_FAULT_SYSCALL");

	if (name)
		sandbox_try_forbidden(name, uses);
}

/* Never returns for worker `index` once a file of that number is in the directory ECHOD_FAULT_HANG names; it is removed. */
static inline void fault_hang(unsigned index)
{
	const char *directory = getenv("ECHOD_FAULT_HANG");
	char path[4096];

	if (!directory)
		return;
	snprintf(path, sizeof path, "%s/%u", directory, index);
	if (unlink(path) == 0)
		for (;;)
			pause();
}

/* Worker `index` turns hostile and dies once a file of that number is in the directory ECHOD_FAULT_HOSTILE names; the file
 * is removed. */
void fault_hostile(unsigned index);
#else
#define fault_try_forbidden(uses) ((void) (uses))
#define fault_hang(index) ((void) (index))
#define fault_hostile(index) ((void) (index))
/* A function rather than the constant: clang reports code behind a constant condition as unreachable. */
static inline uint64_t fault_number(const char *name, uint64_t otherwise)
{
	(void) name;
	return otherwise;
}
#endif

#endif
