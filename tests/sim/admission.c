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

#undef atomic_load
#undef atomic_store
#undef atomic_fetch_add
#undef atomic_fetch_sub
#define atomic_load(object) (sim_access(), atomic_load_explicit(object, memory_order_seq_cst))
#define atomic_store(object, value) (sim_access(), atomic_store_explicit(object, value, memory_order_seq_cst))
#define atomic_fetch_add(object, value) \
	(sim_access(), atomic_fetch_add_explicit(object, value, memory_order_seq_cst))
#define atomic_fetch_sub(object, value) \
	(sim_access(), atomic_fetch_sub_explicit(object, value, memory_order_seq_cst))
#define pthread_mutex_lock(mutex) ((void) (mutex), sim_lock(true))
#define pthread_mutex_unlock(mutex) ((void) (mutex), sim_lock(false))
#define sched_yield() sim_yield()

#include "../../src/net/admission.c"
