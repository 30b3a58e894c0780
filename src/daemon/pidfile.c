/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "daemon/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether `fd` is still the file at `path`: another process may have removed it in between. */
static int same_file(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int pidfile_open(const char *path)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd, error;

	for (;;) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (fd < 0)
			return -errno;
		if (fcntl(fd, F_OFD_SETLK, &whole) < 0)
			break;
		if (!same_file(fd, path)) {
			close(fd);
			continue;
		}
		if (fchmod(fd, 0644) == 0 && ftruncate(fd, 0) == 0 && dprintf(fd, "%d\n", (int) getpid()) > 0)
			return fd;
		break;
	}
	error = errno == EACCES ? EAGAIN : errno; /* both mean that another process holds the lock:
	                                           * fcntl(2) */
	close(fd);
	return -error;
}

pid_t pidfile_read(const char *path)
{
	FILE *file = fopen(path, "re");
	int pid = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%d", &pid) != 1)
		pid = 0;
	fclose(file);
	return pid;
}

void pidfile_close(int fd, const char *path)
{
	if (fd < 0)
		return;
	if (same_file(fd, path) && unlink(path) < 0 && ftruncate(fd, 0) < 0)
		errno = 0; /* the file stays, with the id of a process that does not hold the lock */
	close(fd);
}
