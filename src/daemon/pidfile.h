/* pidfile.h - the locked file that names a daemon's process
 *
 * Supervisor only.
 */
#ifndef ECHOD_DAEMON_PIDFILE_H
#define ECHOD_DAEMON_PIDFILE_H

/* Create and lock (flock(2)) the file at `path` and write this process's id into it. Returns a
 * descriptor to be kept open for as long as the lock shall hold, or -errno: -EWOULDBLOCK where another
 * process holds the lock. */
int pidfile_open(const char *path);

/* Remove the file and let go of the lock. Where this process may no longer remove it, it is
 * emptied. `fd` below 0 is fine. */
void pidfile_close(int fd, const char *path);

#endif
