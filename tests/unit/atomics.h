/* SPDX-License-Identifier: ISC */
/* atomics.h - call BEFORE_ACCESS() before each access to a shared atomic variable
 *
 * To be included after <stdatomic.h> and before a source file whose accesses other processes interrupt. The
 * includer defines BEFORE_ACCESS().
 */
#ifndef ECHOD_TESTS_UNIT_ATOMICS_H
#define ECHOD_TESTS_UNIT_ATOMICS_H

#undef atomic_load
#undef atomic_store
#undef atomic_fetch_add
#undef atomic_fetch_sub
#define atomic_load(object) (BEFORE_ACCESS(), atomic_load_explicit(object, memory_order_seq_cst))
#define atomic_store(object, value) \
	(BEFORE_ACCESS(), atomic_store_explicit(object, value, memory_order_seq_cst))
#define atomic_fetch_add(object, value) \
	(BEFORE_ACCESS(), atomic_fetch_add_explicit(object, value, memory_order_seq_cst))
#define atomic_fetch_sub(object, value) \
	(BEFORE_ACCESS(), atomic_fetch_sub_explicit(object, value, memory_order_seq_cst))

#endif
