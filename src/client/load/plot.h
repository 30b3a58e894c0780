/* SPDX-License-Identifier: ISC */
/* plot.h - draw the distribution of latencies with gnuplot
 *
 * Main thread. Errors have been printed when a function returns.
 */
#ifndef ECHOD_CLIENT_PLOT_H
#define ECHOD_CLIENT_PLOT_H

#include "client/error.h"

struct load_report;

/* Check before the run whether gnuplot is installed and `path` can be written. Returns OUTCOME_OK if so. */
enum outcome plot_check(const char *path);

/* Draw into the SVG file `path`. Returns 0 or -errno. */
int plot_draw(const struct load_report *report, const char *path);

#endif
