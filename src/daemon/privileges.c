/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
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

/* Whether the real, effective and saved IDs are already those of `privileges`. */
static bool is_dropped(const struct privileges *privileges)
{
	uid_t uid[3], want_uid = privileges->uid;
	gid_t gid[3], want_gid = privileges->gid;

	return getresuid(&uid[0], &uid[1], &uid[2]) == 0 && getresgid(&gid[0], &gid[1], &gid[2]) == 0 &&
	       (want_uid == (uid_t) -1 || (uid[0] == want_uid && uid[1] == want_uid && uid[2] == want_uid)) &&
	       (want_gid == (gid_t) -1 || (gid[0] == want_gid && gid[1] == want_gid && gid[2] == want_gid));
}

int privileges_drop(const struct privileges *privileges)
{
	uid_t uid = privileges->uid;
	gid_t gid = privileges->gid;

	/* in a container root may lack CAP_SETUID and CAP_SETGID; then it keeps its supplementary groups */
	if (is_dropped(privileges) && (gid == (gid_t) -1 || setgroups(0, NULL) == 0 || errno == EPERM))
		return 0;
	if (gid != (gid_t) -1 && (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0))
		return -errno;
	if (uid != (uid_t) -1 && setresuid(uid, uid, uid) < 0)
		return -errno;
	if (uid != (uid_t) -1 && uid != 0 && setuid(0) == 0)
		return -EPERM;
	return 0;
}
