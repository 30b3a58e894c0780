/* SPDX-License-Identifier: ISC */
/* memfile.h - files in memory that are passed to other processes (memfd_create(2))
 *
 * Any thread. Positions and sizes are bytes.
 */
#ifndef ECHOD_BASE_MEMFILE_H
#define ECHOD_BASE_MEMFILE_H

#include <stddef.h>
#include <stdint.h>

/* Make an empty file, close-on-exec, never executable; `name` is shown in /proc/PID/fd. The descriptor or
 * -errno. */
int memfile_create(const char *name);

/* Write all of `data` at `at`. Returns 0 or -errno. */
int memfile_write(int file, const void *data, size_t size, int64_t at);

/* Read exactly `size` bytes at `at`. Returns 0, or -EBADMSG where the file ends before that, or another
 * -errno. */
int memfile_read(int file, void *data, size_t size, int64_t at);

/* Make the file read-only and its size fixed for all processes. Returns 0 or -errno. */
int memfile_seal(int file);

/* The size of a file that another process passed; -EBADMSG where it is no file in memory: reading from
 * anything else could wait, or have effects. */
int64_t memfile_size(int file);

#endif
