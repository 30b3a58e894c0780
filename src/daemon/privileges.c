#include <config.h>

#include "daemon/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemonize.h"

int privileges_find(struct privileges *privileges, const char *user, const char *group)
{
	const struct passwd *passwd;
	const struct group *entry;

	*privileges = (struct privileges) { .uid = (uid_t) -1, .gid = (gid_t) -1, .janitor = -1 };
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

/* A file of ours, as it was when we made it. */
struct trace {
	const char *path;
	dev_t device;
	ino_t inode;
};

static void note(struct trace *trace, const char *path)
{
	struct stat st;

	*trace = (struct trace) { .path = path };
	if (lstat(path, &st) < 0)
		return;
	trace->device = st.st_dev;
	trace->inode = st.st_ino;
}

/* Remove the file, unless by now it is somebody else's: another one of that name, or a pid file
 * that a successor has taken over, who holds its lock. */
static void clean(const struct trace *trace)
{
	struct stat st;
	int fd = -1;

	if (lstat(trace->path, &st) < 0 || st.st_dev != trace->device || st.st_ino != trace->inode)
		return;
	if (S_ISREG(st.st_mode)) {
		fd = open(trace->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			return;
	}
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlink(trace->path);
	if (fd >= 0)
		close(fd);
}

static void __attribute__((noreturn)) janitor_main(int fd, const struct trace traces[], size_t count)
{
	char byte;
	ssize_t n;

	daemonize_close_others(&fd, 1);
	prctl(PR_SET_NAME, "echod-janitor");
	signal(SIGPIPE, SIG_IGN);
	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	for (size_t i = 0; n == 0 && i < count; i++)
		clean(&traces[i]);
	_exit(0);
}

int privileges_leave_janitor(struct privileges *privileges, const char *const paths[], size_t count)
{
	struct trace *traces = calloc(count, sizeof *traces);
	int ends[2];
	pid_t pid;

	if (!traces)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		note(&traces[i], paths[i]);
	if (pipe2(ends, O_CLOEXEC) < 0) {
		int error = errno;

		free(traces);
		return -error;
	}
	pid = fork();
	if (pid != 0) {
		int error = errno;

		free(traces);
		close(ends[0]);
		privileges->janitor = ends[1]; /* stays open for as long as this process lives */
		return pid < 0 ? -error : 0;
	}
	/* not a child of whom it serves, who reaps what it does not know */
	if (fork() != 0)
		_exit(0);
	janitor_main(ends[0], traces, count);
}

void privileges_dismiss_janitor(const struct privileges *privileges)
{
	if (privileges->janitor >= 0 && write(privileges->janitor, "", 1) < 0)
		errno = 0; /* it is gone already */
}
