/* SPDX-License-Identifier: ISC */
/* fake_nofile.c - a host whose hard RLIMIT_NOFILE is the number in FAKE_NOFILE (LD_PRELOAD)
 *
 * The real limit does not change: getrlimit(2) and setrlimit(2) use the simulated limit.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct rlimit64 faked = { 1024, 0 };

static int limit(int resource, const struct rlimit64 *new, struct rlimit64 *old)
{
	if (resource != RLIMIT_NOFILE)
		return (int) syscall(SYS_prlimit64, 0, resource, new, old);
	if (faked.rlim_max == 0)
		faked.rlim_max = strtoull(getenv("FAKE_NOFILE"), NULL, 10);
	if (old)
		*old = faked;
	if (new)
		faked = *new;
	return 0;
}

int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *old)
{
	return limit((int) resource, NULL, old);
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *new)
{
	return limit((int) resource, new, NULL);
}

int getrlimit(__rlimit_resource_t resource, struct rlimit *old)
{
	struct rlimit64 wide;
	int r = limit((int) resource, NULL, &wide);

	*old = (struct rlimit) { (rlim_t) wide.rlim_cur, (rlim_t) wide.rlim_max };
	return r;
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *new)
{
	return limit((int) resource, &(struct rlimit64) { new->rlim_cur, new->rlim_max }, NULL);
}
