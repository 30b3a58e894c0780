/* SPDX-License-Identifier: ISC */
/* pidfile.h - the locked file that names a daemon's process
 *
 * Supervisor only.
 */
#ifndef ECHOD_DAEMON_PIDFILE_H
#define ECHOD_DAEMON_PIDFILE_H

#include <sys/types.h>

/* Create and lock the file at `path` and write this process's id into it. The lock is an open file description lock (F_OFD_SETLK,
 * fcntl(2)) for writing: unlike flock(2) it needs a descriptor that may write, so a user who can only read the file cannot hold it. Returns a
 * descriptor to be kept open for as long as the lock shall hold, or -errno: -EWOULDBLOCK where another
 * process holds the lock. */
int pidfile_open(const char *path);

/* The process that the file at `path` names; 0 where it names none. */
pid_t pidfile_read(const char *path);

/* Remove the file, unless another one has taken its name, and let go of the lock. Where this process
 * may no longer remove it, it is emptied. `fd` below 0 is fine. */
void pidfile_close(int fd, const char *path);

#endif
