/* SPDX-License-Identifier: ISC */
/* coarse_clock.c - clocks that advance in steps of 10 ms, as on a host whose clock source is the timer
 * interrupt (LD_PRELOAD)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *time)
{
	int r = ((int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime"))(id, time);

	if (r == 0)
		time->tv_nsec -= time->tv_nsec % 10000000;
	return r;
}
