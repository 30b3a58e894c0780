#include <config.h>

#include "daemon/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/daemonize.h"

int privileges_find(struct privileges *privileges, const char *user, const char *group)
{
	const struct passwd *passwd;
	const struct group *entry;

	*privileges = (struct privileges) { .uid = (uid_t) -1, .gid = (gid_t) -1 };
	if (*user) {
		passwd = getpwnam(user);
		if (!passwd)
			return -ENOENT;
		privileges->uid = passwd->pw_uid;
		privileges->gid = passwd->pw_gid;
		snprintf(privileges->user, sizeof privileges->user, "%s", user);
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

int privileges_leave_janitor(const char *const paths[], size_t count)
{
	int ends[2];
	char byte;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid != 0) {
		int error = errno;

		close(ends[0]); /* ends[1] stays open for as long as this process lives */
		return pid < 0 ? -error : 0;
	}
	/* not a child of whom it serves, who reaps what it does not know */
	if (fork() != 0)
		_exit(0);
	daemonize_close_others(&ends[0], 1);
	prctl(PR_SET_NAME, "echod-janitor");
	signal(SIGPIPE, SIG_IGN);
	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	for (size_t i = 0; i < count; i++)
		unlink(paths[i]);
	_exit(0);
}
