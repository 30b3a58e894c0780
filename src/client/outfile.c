/* SPDX-License-Identifier: ISC */
/* outfile.c - see outfile.h */
#include <config.h>

#include "client/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int outfile_open(struct outfile *file, const char *path)
{
	struct stat status;
	mode_t mask;

	*file = (struct outfile) { .path = path };
	if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
		file->fd = open(path, O_WRONLY | O_CLOEXEC);
		return file->fd < 0 ? -errno : 0;
	}
	if (asprintf(&file->temporary, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	file->fd = mkostemp(file->temporary, O_CLOEXEC);
	if (file->fd < 0) {
		int error = -errno;

		free(file->temporary);
		return error;
	}
	mask = umask(0);
	umask(mask);
	fchmod(file->fd, 0666 & ~mask);
	return 0;
}

int outfile_close(struct outfile *file, int error)
{
	if (close(file->fd) < 0 && error == 0)
		error = -errno;
	if (!file->temporary)
		return error;
	if (error == 0 && rename(file->temporary, file->path) < 0)
		error = -errno;
	if (error < 0)
		unlink(file->temporary);
	free(file->temporary);
	return error;
}

int outfile_check(const char *path)
{
	struct outfile file;
	int r = outfile_open(&file, path);

	if (r == 0)
		outfile_close(&file, -ECANCELED);
	return r;
}
