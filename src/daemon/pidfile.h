/* SPDX-License-Identifier: ISC */
/* pidfile.h - the locked file with the process id of the daemon
 *
 * Supervisor only.
 */
#ifndef ECHOD_DAEMON_PIDFILE_H
#define ECHOD_DAEMON_PIDFILE_H

#include <sys/types.h>

/* Create and lock the file at `path` and write this process's id into it. The lock is an open file
 * description lock for writing (F_OFD_SETLK, fcntl(2)): unlike flock(2) it needs a writable descriptor, so a
 * user who can only read the file cannot hold it. Returns a descriptor, which holds the lock until it is
 * closed, or -errno: -EWOULDBLOCK where another process holds the lock. */
int pidfile_open(const char *path);

/* The process id in the file at `path`; 0 where there is none. */
pid_t pidfile_read(const char *path);

/* Remove the file, unless it was replaced by another one, and release the lock. Where this process may not
 * remove it any more, it is emptied. `fd` below 0 is allowed. */
void pidfile_close(int fd, const char *path);

#endif
