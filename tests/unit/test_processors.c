/* SPDX-License-Identifier: ISC */
/* test_processors.c - processors by affinity mask and by the quotas of control groups */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/processors.h"

/* --- the affinity mask of a substitute kernel ------------------------------------------- */

static bool substitute;          /* else the kernel's mask is returned, to a sanitizer */
static size_t kernel_processors; /* length of the substitute mask; 0: the call fails with EPERM */
static unsigned allowed;         /* bits set in it */

/* This function replaces that of libc. Sanitizers call it before they are initialized, so it is not
 * instrumented. */
__attribute__((no_sanitize("thread")))
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
	if (!substitute)
		return (int) syscall(SYS_sched_getaffinity, pid, size, set) < 0 ? -1 : 0;
	if (kernel_processors == 0 || size * CHAR_BIT < kernel_processors) {
		errno = kernel_processors == 0 ? EPERM : EINVAL;
		return -1;
	}
	CPU_ZERO_S(size, set);
	for (size_t i = 0; i < allowed; i++)
		CPU_SET_S(kernel_processors - 1 - i, size, set);
	return 0;
}

static void masks_of_any_length_are_counted(void **state)
{
	static const size_t lengths[] = { 64, 1024, 1025, 4096, 8192, 65536 };

	(void) state;
	substitute = true;
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		kernel_processors = lengths[i];
		allowed = 3;
		assert_int_equal(processors_allowed(), 3);
		allowed = (unsigned) lengths[i];
		assert_int_equal(processors_allowed(), lengths[i]);
	}
	kernel_processors = 0;
	assert_int_equal(processors_allowed(), 1);
	substitute = false;
}

/* --- control groups --------------------------------------------------------------------- */

static char root[PATH_MAX];

static void put(const char *path, const char *text)
{
	char full[2 * PATH_MAX];
	FILE *out;

	snprintf(full, sizeof full, "%s%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
		*at = '/';
	}
	out = fopen(full, "w");
	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static int setup(void **state)
{
	(void) state;
	snprintf(root, sizeof root, "/tmp/echod-test-processors.XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[2 * PATH_MAX];

	(void) state;
	snprintf(command, sizeof command, "rm -r '%s'", root);
	return system(command);
}

#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"

static void without_files_there_is_no_quota(void **state)
{
	(void) state;
	assert_int_equal(processors_quota(root), 0);
	put("/proc/self/mountinfo", V2_MOUNT);
	assert_int_equal(processors_quota(root), 0);
	put("/proc/self/cgroup", "0::/a\n");
	assert_int_equal(processors_quota(root), 0);
	put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
	assert_int_equal(processors_quota(root), 0);
	put("/sys/fs/cgroup/a/cpu.max", "nonsense");
	assert_int_equal(processors_quota(root), 0);
	put("/sys/fs/cgroup/a/cpu.max", "100000 0\n");
	assert_int_equal(processors_quota(root), 0);
}

static void a_quota_is_rounded_up(void **state)
{
	(void) state;
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/proc/self/cgroup", "0::/a\n");
	put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
	assert_int_equal(processors_quota(root), 2);
	put("/sys/fs/cgroup/a/cpu.max", "200001 100000\n");
	assert_int_equal(processors_quota(root), 3);
	put("/sys/fs/cgroup/a/cpu.max", "1000 100000\n");
	assert_int_equal(processors_quota(root), 1);
	put("/sys/fs/cgroup/a/cpu.max", "9223372036854775807 1\n");
	assert_true(processors_quota(root) > 1000);
}

static void the_smallest_quota_on_the_path_counts(void **state)
{
	(void) state;
	put("/proc/self/mountinfo", V2_MOUNT);
	put("/proc/self/cgroup", "0::/a/b c/d\n");
	put("/sys/fs/cgroup/a/b c/d/cpu.max", "max 100000\n");
	put("/sys/fs/cgroup/a/b c/cpu.max", "500000 100000\n");
	assert_int_equal(processors_quota(root), 5);
	put("/sys/fs/cgroup/a/cpu.max", "300000 100000\n");
	assert_int_equal(processors_quota(root), 3);
	put("/sys/fs/cgroup/a/b c/d/cpu.max", "400000 100000\n");
	assert_int_equal(processors_quota(root), 3);
	/* the root group, as in a container */
	put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
	assert_int_equal(processors_quota(root), 2);
	/* the quota of a sibling group does not count */
	put("/sys/fs/cgroup/other/cpu.max", "100000 100000\n");
	assert_int_equal(processors_quota(root), 2);
}

static void groups_outside_of_the_mount_are_ignored(void **state)
{
	(void) state;
	put("/proc/self/mountinfo", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
	put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
	put("/sys/fs/cgroup/sub/cpu.max", "200000 100000\n");
	put("/proc/self/cgroup", "0::/docker/abc\n");
	assert_int_equal(processors_quota(root), 4);
	put("/proc/self/cgroup", "0::/docker/abc/sub\n");
	assert_int_equal(processors_quota(root), 2);
	put("/proc/self/cgroup", "0::/docker/abcd/sub\n");
	assert_int_equal(processors_quota(root), 4);
	put("/proc/self/cgroup", "0::/../sub\n");
	assert_int_equal(processors_quota(root), 4);
	put("/proc/self/cgroup", "0::/\n");
	assert_int_equal(processors_quota(root), 4);
}

static void version_1_is_read(void **state)
{
	(void) state;
	put("/proc/self/mountinfo",
	    "33 32 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
	    "34 32 0:29 / /sys/fs/cgroup/cpu\\040x rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n");
	put("/proc/self/cgroup", "12:cpuset:/wrong\n4:cpu,cpuacct:/a/b\n1:name=systemd:/x\n0::/y\n");
	put("/sys/fs/cgroup/cpu x/a/b/cpu.cfs_period_us", "50000\n");
	put("/sys/fs/cgroup/cpu x/a/b/cpu.cfs_quota_us", "-1\n");
	assert_int_equal(processors_quota(root), 0);
	put("/sys/fs/cgroup/cpu x/a/b/cpu.cfs_quota_us", "350000\n");
	assert_int_equal(processors_quota(root), 7);
	put("/sys/fs/cgroup/cpu x/a/cpu.cfs_quota_us", "150000\n");
	assert_int_equal(processors_quota(root), 7); /* without a period */
	put("/sys/fs/cgroup/cpu x/a/cpu.cfs_period_us", "100000\n");
	assert_int_equal(processors_quota(root), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(masks_of_any_length_are_counted),
		cmocka_unit_test_setup_teardown(without_files_there_is_no_quota, setup, teardown),
		cmocka_unit_test_setup_teardown(a_quota_is_rounded_up, setup, teardown),
		cmocka_unit_test_setup_teardown(the_smallest_quota_on_the_path_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(groups_outside_of_the_mount_are_ignored, setup, teardown),
		cmocka_unit_test_setup_teardown(version_1_is_read, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
