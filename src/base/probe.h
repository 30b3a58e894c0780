/* SPDX-License-Identifier: ISC */
/* probe.h - USDT probes (sys/sdt.h of SystemTap)
 *
 * A probe is a no-operation instruction, and a note in the program that tells perf(1), bpftrace(8) and others
 * its place and arguments. Without sys/sdt.h at build time there are none. HACKING.md lists all probes. The
 * arguments are evaluated always: use values that are at hand. Any thread; cannot fail.
 */
#ifndef ECHOD_BASE_PROBE_H
#define ECHOD_BASE_PROBE_H

#ifdef HAVE_SYS_SDT_H
#include <sys/sdt.h>
#define PROBE2(name, a, b) DTRACE_PROBE2(echod, name, a, b)
#define PROBE3(name, a, b, c) DTRACE_PROBE3(echod, name, a, b, c)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(echod, name, a, b, c, d)
#else
#define PROBE2(name, a, b) ((void) (a), (void) (b))
#define PROBE3(name, a, b, c) ((void) (a), (void) (b), (void) (c))
#define PROBE4(name, a, b, c, d) ((void) (a), (void) (b), (void) (c), (void) (d))
#endif

#endif
