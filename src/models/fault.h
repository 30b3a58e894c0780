/* SPDX-License-Identifier: ISC */
/* fault.h - fault points for tests
 *
 * In builds configured with --enable-debug-faults, environment variables inject faults. In other builds
 * fault_number() returns its default, fault_file() false, and the other functions do nothing.
 */
#ifndef ECHOD_MODELS_FAULT_H
#define ECHOD_MODELS_FAULT_H

#include <stdbool.h>
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

/* Make the system call named by ECHOD_FAULT_SYSCALL, or, if that is "all", each forbidden one, and log the
 * results. */
static inline void fault_try_forbidden(unsigned uses)
{
	const char *name = getenv("ECHOD_FAULT_SYSCALL");

	if (name)
		sandbox_try_forbidden(name, uses);
}

/* Whether a file of that name is in the directory that the variable names; the file is removed. */
static inline bool fault_file(const char *variable, unsigned name)
{
	const char *directory = getenv(variable);
	char path[4096];

	if (!directory)
		return false;
	snprintf(path, sizeof path, "%s/%u", directory, name);
	return unlink(path) == 0;
}

/* Hang worker `index` once a file of that name is in the directory ECHOD_FAULT_HANG. */
static inline void fault_hang(unsigned index)
{
	if (fault_file("ECHOD_FAULT_HANG", index))
		for (;;)
			pause();
}

/* Make worker `index` hostile, and kill it, once a file of that name is in the directory ECHOD_FAULT_HOSTILE;
 * the file is removed. */
void fault_hostile(unsigned index);
#else
#define fault_try_forbidden(uses) ((void) (uses))
#define fault_hang(index) ((void) (index))
#define fault_hostile(index) ((void) (index))
/* A function rather than a constant, because clang reports code behind a constant condition as
 * unreachable. */
static inline uint64_t fault_number(const char *name, uint64_t otherwise)
{
	(void) name;
	return otherwise;
}

static inline bool fault_file(const char *variable, unsigned name)
{
	(void) variable;
	(void) name;
	return false;
}
#endif

#endif
