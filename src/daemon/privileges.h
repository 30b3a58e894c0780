/* SPDX-License-Identifier: ISC */
/* privileges.h - from root to whom the configuration names
 *
 * Supervisor, once, before it forks the first crew.
 */
#ifndef ECHOD_DAEMON_PRIVILEGES_H
#define ECHOD_DAEMON_PRIVILEGES_H

#include <stddef.h>
#include <sys/types.h>

struct privileges {
	uid_t uid; /* (uid_t) -1: stays */
	gid_t gid; /* (gid_t) -1: stays */
};

#define PRIVILEGES_NONE { .uid = (uid_t) -1, .gid = (gid_t) -1 }

/* Look up `user` and `group` ("": none). A user without a group brings the user's own. Returns
 * 0, or -ENOENT where there is no such name. */
int privileges_find(struct privileges *privileges, const char *user, const char *group);

/* Become them for good: groups cleared, then the group, then the user; afterwards it is
 * verified that there is no way back. Returns 0 or -errno. */
int privileges_drop(const struct privileges *privileges);

#endif
