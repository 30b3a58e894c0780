/* SPDX-License-Identifier: ISC */
/* outfile.h - write a file so that it is never seen empty or incomplete
 *
 * The file is written under a temporary name in the same directory and renamed at the end. A path that
 * exists and is not a regular file, as /dev/stdout, is written directly. Main thread.
 */
#ifndef ECHOD_CLIENT_OUTFILE_H
#define ECHOD_CLIENT_OUTFILE_H

struct outfile {
	const char *path;
	char *temporary; /* NULL: written directly */
	int fd;
};

/* Whether `path` can be written: 0 or -errno. Changes nothing. */
int outfile_check(const char *path);

/* Open for writing; `path` must stay valid. Returns 0, then call outfile_close(); or -errno. */
int outfile_open(struct outfile *file, const char *path);

/* Close. `error` is 0 if everything was written: then the file replaces `path`; otherwise it is removed.
 * Returns 0, `error`, or the -errno of closing or renaming. */
int outfile_close(struct outfile *file, int error);

#endif
