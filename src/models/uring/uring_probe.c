/* SPDX-License-Identifier: ISC */
/* uring_probe.c - whether io_uring can be used on this host, and if not, the reason */
#include <config.h>

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "models/model.h"
#include "models/uring/uring_ring.h"

#define SYSCTL "/proc/sys/kernel/io_uring_disabled"

/* The value of the sysctl; -1: this kernel does not have it. */
static int sysctl_disabled(void)
{
	FILE *file = fopen(SYSCTL, "re");
	int value = -1;

	if (file && fscanf(file, "%d", &value) != 1)
		value = -1;
	if (file)
		fclose(file);
	return value;
}

static void describe_permission(char *text, size_t size)
{
	int disabled = sysctl_disabled();

	if (disabled == 2)
		snprintf(text, size, "sysctl kernel.io_uring_disabled is 2; set it to 0");
	else if (disabled == 1)
		snprintf(text, size,
		         "sysctl kernel.io_uring_disabled is 1; set it to 0, or put echod's group into "
		         "kernel.io_uring_group");
	else
		snprintf(text, size,
		         "io_uring is forbidden, by a seccomp filter or security module; admit it "
		         "(SystemCallFilter=@aio in a unit, the seccomp profile of a container)");
}

static void describe_error(int error, char *text, size_t size)
{
	struct utsname host;

	switch (error) {
	case EPERM:
	case EACCES:
		describe_permission(text, size);
		break;
	case ENOSYS:
		snprintf(text, size,
		         "io_uring_setup(2) is missing, from the kernel (CONFIG_IO_URING) or by a seccomp "
		         "filter; admit it, or boot a kernel that has it");
		break;
	case EINVAL:
		if (uname(&host) < 0)
			host.release[0] = '\0';
		snprintf(text, size,
		         "kernel %.40s is too old for what it needs of io_uring; boot Linux 5.19 or newer",
		         host.release);
		break;
	case ENOMEM:
		snprintf(text, size,
		         "not enough memory may be locked for its rings; raise LimitMEMLOCK= (ulimit -l)");
		break;
	default:
		snprintf(text, size, "io_uring_setup(2) fails: %s; clear its cause", strerror(error));
	}
}

static bool has_operations(struct io_uring *io)
{
	static const int needed[] = {
		IORING_OP_ACCEPT, IORING_OP_RECV, IORING_OP_SEND, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL,
	};
	struct io_uring_probe *probe = io_uring_get_probe_ring(io);
	bool all = probe;

	for (size_t i = 0; all && i < sizeof needed / sizeof needed[0]; i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	return all && io->features & IORING_FEAT_NODROP && io->features & IORING_FEAT_EXT_ARG;
}

const char *uring_probe(char *text, size_t size)
{
	struct ring ring;
	int r = ring_open(&ring, 1);

	/* buffer rings exist since the same version as multishot accept, which cannot be probed */
	if (r == 0 && !has_operations(&ring.io))
		r = -EINVAL;
	if (r == 0)
		r = ring_enable(&ring);
	ring_close(&ring);
	if (r == 0)
		return NULL;
	describe_error(-r, text, size);
	return text;
}
