/* SPDX-License-Identifier: ISC */
/* admission.c - net/admission.c, in which other workers also run between two accesses to shared counts
 *
 * It replaces the object of libechod.a. Its lock protects the table of one process, and here all processes
 * have the same, so no other worker runs while it is taken.
 */
#include <config.h>

#include "sim.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define BEFORE_ACCESS() sim_access()
#include "../unit/atomics.h"

#define pthread_mutex_lock(mutex) ((void) (mutex), sim_lock(true))
#define pthread_mutex_unlock(mutex) ((void) (mutex), sim_lock(false))
#define sched_yield() sim_yield()

#include "../../src/net/admission.c"
