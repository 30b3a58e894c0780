/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/processors.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernel refuses a mask that is shorter than its own; no kernel has more processors than this. */
#define PROCESSORS_MAX (1U << 20)

unsigned processors_allowed(void)
{
	for (size_t max = CPU_SETSIZE; max <= PROCESSORS_MAX; max *= 2) {
		size_t size = CPU_ALLOC_SIZE(max);
		cpu_set_t *set = CPU_ALLOC(max);
		int count = 0, r;

		if (!set)
			break;
		r = sched_getaffinity(0, size, set);
		if (r == 0)
			count = CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (r == 0)
			return count > 0 ? (unsigned) count : 1;
		if (errno != EINVAL)
			break;
	}
	return 1;
}

/* --- quotas ---------------------------------------------------------------------------- */

/* One mounted hierarchy of control groups: proc_pid_mountinfo(5). */
struct hierarchy {
	char mounted[PATH_MAX]; /* the directory */
	char top[PATH_MAX];     /* the group that is mounted there */
	bool v2;
};

static FILE *open_below(const char *root, const char *directory, const char *file)
{
	char path[3 * PATH_MAX];

	if (snprintf(path, sizeof path, "%s%s/%s", root, directory, file) >= (int) sizeof path)
		return NULL;
	return fopen(path, "re");
}

static long long read_number(const char *root, const char *directory, const char *file)
{
	FILE *in = open_below(root, directory, file);
	long long number = 0;

	if (!in)
		return 0;
	if (fscanf(in, "%lld", &number) != 1)
		number = 0;
	fclose(in);
	return number;
}

/* The quota of one group in microseconds of each `*period`; 0 or less: none. "max" of version 2 and -1 of
 * version 1 are none. */
static long long read_quota(const char *root, const char *directory, bool v2, long long *period)
{
	long long quota = 0;
	FILE *in;

	if (!v2) {
		*period = read_number(root, directory, "cpu.cfs_period_us");
		return read_number(root, directory, "cpu.cfs_quota_us");
	}
	in = open_below(root, directory, "cpu.max");
	if (!in)
		return 0;
	if (fscanf(in, "%lld %lld", &quota, period) != 2)
		quota = 0;
	fclose(in);
	return quota;
}

static void lower_to(unsigned *quota, unsigned value)
{
	if (*quota == 0 || value < *quota)
		*quota = value;
}

/* The smallest quota of `group` and all groups above it that are visible in the hierarchy. */
static void quota_of_path(const char *root, const struct hierarchy *hierarchy, const char *group,
                          unsigned *smallest)
{
	size_t top = strcmp(hierarchy->top, "/") == 0 ? 0 : strlen(hierarchy->top);
	char directory[2 * PATH_MAX];
	char *below;

	/* with a control group namespace, or another group mounted, the path does not lead below the mounted
	 * directory */
	if (strncmp(group, hierarchy->top, top) != 0 || (group[top] != '/' && group[top] != '\0') ||
	    strstr(group, "/.."))
		group = "";
	else
		group += top;
	snprintf(directory, sizeof directory, "%s%s", hierarchy->mounted,
	         strcmp(group, "/") == 0 ? "" : group);
	below = directory + strlen(hierarchy->mounted);
	for (;;) {
		long long period = 0, quota = read_quota(root, directory, hierarchy->v2, &period);

		if (quota > 0 && period > 0) {
			long long count = quota / period + (quota % period > 0);

			lower_to(smallest, count < PROCESSORS_MAX ? (unsigned) count : PROCESSORS_MAX);
		}
		if (!*below)
			return;
		*strrchr(below, '/') = '\0';
	}
}

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		unsigned octal[3];

		if (sscanf(from, "\\%1o%1o%1o", &octal[0], &octal[1], &octal[2]) == 3) {
			*to++ = (char) (octal[0] << 6 | octal[1] << 3 | octal[2]);
			from += 3;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
}

static bool list_has(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (; *list; list += strcspn(list, ","), list += *list == ',')
		if (strcspn(list, ",") == length && strncmp(list, word, length) == 0)
			return true;
	return false;
}

/* Whether the line of mountinfo is a hierarchy that knows CPU quotas. */
static bool read_mount(struct hierarchy *hierarchy, const char *line)
{
	const char *rest = strstr(line, " - ");
	char type[64], options[512];

	if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", hierarchy->top, hierarchy->mounted) != 2 ||
	    sscanf(rest, " - %63s %*s %511s", type, options) != 2)
		return false;
	unescape(hierarchy->top);
	unescape(hierarchy->mounted);
	hierarchy->v2 = strcmp(type, "cgroup2") == 0;
	return hierarchy->v2 || (strcmp(type, "cgroup") == 0 && list_has(options, "cpu"));
}

/* The group of this process in the hierarchy, into `group` (`size` bytes): "ID:CONTROLLERS:PATH" of
 * /proc/self/cgroup, where version 2 has no controllers. */
static bool read_group(const char *root, bool v2, char *group, size_t size)
{
	FILE *in = open_below(root, "/proc/self", "cgroup");
	char line[PATH_MAX + 256];
	bool found = false;

	while (in && !found && fgets(line, sizeof line, in)) {
		char *controllers = strchr(line, ':'),
		     *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		found = v2 ? controllers[1] == '\0' : list_has(controllers + 1, "cpu");
		if (found)
			snprintf(group, size, "%s", path);
	}
	if (in)
		fclose(in);
	return found;
}

unsigned processors_quota(const char *root)
{
	FILE *in = open_below(root, "/proc/self", "mountinfo");
	struct hierarchy hierarchy;
	char *line = NULL, group[PATH_MAX];
	unsigned smallest = 0;
	size_t size = 0;

	while (in && getline(&line, &size, in) > 0)
		if (read_mount(&hierarchy, line) && read_group(root, hierarchy.v2, group, sizeof group))
			quota_of_path(root, &hierarchy, group, &smallest);
	free(line);
	if (in)
		fclose(in);
	return smallest;
}

unsigned processors_available(void)
{
	unsigned allowed = processors_allowed(), quota = processors_quota("");

	return quota > 0 && quota < allowed ? quota : allowed;
}
