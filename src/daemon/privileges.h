/* SPDX-License-Identifier: ISC */
/* privileges.h - change from root to the configured user and group
 *
 * Supervisor, once, before it forks the first crew.
 */
#ifndef ECHOD_DAEMON_PRIVILEGES_H
#define ECHOD_DAEMON_PRIVILEGES_H

#include <stddef.h>
#include <sys/types.h>

struct privileges {
	uid_t uid; /* (uid_t) -1: unchanged */
	gid_t gid; /* (gid_t) -1: unchanged */
};

#define PRIVILEGES_NONE { .uid = (uid_t) -1, .gid = (gid_t) -1 }

/* Look up `user` and `group` ("": none). Without a group, the user's own group is used. Returns 0, or -ENOENT
 * where a name does not exist. */
int privileges_find(struct privileges *privileges, const char *user, const char *group);

/* Change permanently: clear supplementary groups, set the group, then the user; then verify that root cannot
 * be regained. Returns 0 or -errno. */
int privileges_drop(const struct privileges *privileges);

#endif
