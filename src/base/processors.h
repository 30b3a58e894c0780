/* SPDX-License-Identifier: ISC */
/* processors.h - the number of processors that this process may use
 *
 * Limited by the scheduler's affinity mask (sched_getaffinity(2)) and by the CPU quota of the
 * control groups that the process is in (cgroups(7); cpu.max of version 2,
 * cpu.cfs_quota_us of version 1). A quota holds for a group and all groups below it, so
 * the smallest one on the path from the process's group up to the root counts.
 */
#ifndef ECHOD_BASE_PROCESSORS_H
#define ECHOD_BASE_PROCESSORS_H

/* Processors of the affinity mask, of any length; 1 where the mask cannot be read. */
unsigned processors_allowed(void);

/* The smallest CPU quota in processors, rounded up, at least 1; 0: there is none, or it cannot
 * be read (no /proc, no control groups). `root` is put before every path: "" for this host,
 * a directory with a substitute tree in tests. */
unsigned processors_quota(const char *root);

/* The smaller of both, at least 1. */
unsigned processors_available(void);

#endif
