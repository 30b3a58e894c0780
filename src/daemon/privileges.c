/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

int privileges_find(struct privileges *privileges, const char *user, const char *group)
{
	const struct passwd *passwd;
	const struct group *entry;

	*privileges = (struct privileges) PRIVILEGES_NONE;
	if (*user) {
		passwd = getpwnam(user);
		if (!passwd)
			return -ENOENT;
		privileges->uid = passwd->pw_uid;
		privileges->gid = passwd->pw_gid;
	}
	if (*group) {
		entry = getgrnam(group);
		if (!entry)
			return -ENOENT;
		privileges->gid = entry->gr_gid;
	}
	return 0;
}

int privileges_drop(const struct privileges *privileges)
{
	uid_t uid = privileges->uid;
	gid_t gid = privileges->gid;

	if (gid != (gid_t) -1 && (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0))
		return -errno;
	if (uid != (uid_t) -1 && setresuid(uid, uid, uid) < 0)
		return -errno;
	if (uid != (uid_t) -1 && uid != 0 && setuid(0) == 0)
		return -EPERM;
	return 0;
}
