/* SPDX-License-Identifier: ISC */
/* replay.c - run a fuzz target with stored inputs, without libFuzzer
 *
 * Every argument is a file or a directory of files. So every "make check", with any compiler, tries the
 * corpus, which includes inputs that fuzzing has found.
 */
#include <config.h>

#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static unsigned long replayed;

static int replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = NULL;
	struct stat status;
	size_t size;
	int r = -1;

	if (!file || fstat(fileno(file), &status) < 0 || !S_ISREG(status.st_mode))
		goto out;
	size = (size_t) status.st_size;
	data = malloc(size ? size : 1);
	if (!data || fread(data, 1, size, file) != size)
		goto out;
	LLVMFuzzerTestOneInput(data, size);
	replayed++;
	r = 0;
out:
	if (r < 0)
		fprintf(stderr, "%s: cannot be read: %s\n", path, strerror(errno));
	free(data);
	if (file)
		fclose(file);
	return r;
}

static int replay(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	int r = 0;

	if (!directory)
		return replay_file(path);
	while (r == 0 && (entry = readdir(directory))) {
		char *name;

		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&name, "%s/%s", path, entry->d_name) < 0)
			abort();
		r = replay_file(name);
		free(name);
	}
	closedir(directory);
	return r;
}

int main(int argc, char *argv[])
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]) < 0)
			return 1;
	printf("%lu inputs\n", replayed);
	return replayed == 0;
}
