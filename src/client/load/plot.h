/* plot.h - a picture of the latencies, drawn by gnuplot
 *
 * Main thread. Both say on standard error what went wrong.
 */
#ifndef ECHOD_CLIENT_PLOT_H
#define ECHOD_CLIENT_PLOT_H

struct load_report;

/* Whether it can be drawn here, into `path`; asked before the run. Returns -1, or the outcome to end with. */
int plot_check(const char *path);

/* Draw into the file `path` as SVG. Returns 0 or -errno. */
int plot_draw(const struct load_report *report, const char *path);

#endif
