/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "base/memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif

int memfile_create(const char *name)
{
	/* the sysctl vm.memfd_noexec may forbid files without this flag */
	int file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (file < 0 && errno == EINVAL)
		file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return file < 0 ? -errno : file;
}

int memfile_write(int file, const void *data, size_t size, int64_t at)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pwrite(file, (const char *) data + done, size - done, at + (off_t) done);

		if (n < 0)
			return -errno;
		done += (size_t) n;
	}
	return 0;
}

int memfile_read(int file, void *data, size_t size, int64_t at)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(file, (char *) data + done, size - done, at + (off_t) done);

		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		done += (size_t) n;
	}
	return 0;
}

int memfile_seal(int file)
{
	return fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0 ? -errno : 0;
}

int64_t memfile_size(int file)
{
	struct stat st;

	/* only files in memory have seals, though perhaps none */
	if (fcntl(file, F_GET_SEALS) < 0 || fstat(file, &st) < 0 || !S_ISREG(st.st_mode))
		return -EBADMSG;
	return st.st_size;
}
