/* SPDX-License-Identifier: ISC */
/* plot.c - see plot.h */
#include <config.h>

#include "client/load/plot.h"

#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/plural.h"
#include "client/load/report.h"
#include "client/outfile.h"

#define TOOL "gnuplot"
/* Ratio of consecutive bars: 40 bars in a power of ten, each as wide as many cells of the histogram. */
#define STEP 1.06

static bool tool_installed(void)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path ? path : "/usr/local/bin:/usr/bin:/bin"), *rest = copy, *directory;
	bool found = false;

	while (!found && rest && (directory = strsep(&rest, ":")) != NULL) {
		char *file;

		if (asprintf(&file, "%s/" TOOL, directory) < 0)
			break;
		found = access(file, X_OK) == 0;
		free(file);
	}
	free(copy);
	return found;
}

enum outcome plot_check(const char *path)
{
	int r;

	if (!tool_installed())
		return client_error(OUTCOME_USAGE, "--plot: " TOOL " is needed and is not installed");
	r = outfile_check(path);
	if (r < 0)
		return client_error(OUTCOME_USAGE, "--plot: cannot write %s: %s", path, strerror(-r));
	return OUTCOME_OK;
}

/* Write a single-quoted string of gnuplot: a quote is doubled. */
static void string_write(FILE *file, const char *text)
{
	fputc('\'', file);
	for (; *text != '\0'; text++) {
		if (*text == '\'')
			fputc('\'', file);
		fputc(*text == '\n' ? ' ' : *text, file);
	}
	fputc('\'', file);
}

/* The share of the messages with each latency (left axis), and the share with at most that latency (right
 * axis). */
static void script_write(FILE *file, const struct load_report *report)
{
	const struct client_options *options = report->options;
	const struct histogram *latency = &report->latency;
	double low = (double) (latency->min > 0 ? latency->min : 1), high = (double) (latency->max + 1);
	double edge = low;
	uint64_t seen = 0;
	char title[256];

	snprintf(title, sizeof title, "%s: %s, %u connection%s, %llu byte%s: %.0f echoes/s",
		 target_text(report->address), options_mode_name(options->mode), options->connections,
		 plural(options->connections), (unsigned long long) options->size, plural(options->size),
		 report->seconds > 0 ? report->echoes / report->seconds : 0);
	fputs("set terminal svg size 900,480 dynamic enhanced background rgb 'white' font 'sans,13'\nset "
	      "title ",
	      file);
	string_write(file, title);
	fputs(" noenhanced\nset xlabel 'latency, microseconds'\nset logscale x\nset grid\nset key top left\n"
	      "set ylabel 'share of the messages, per cent'\nset y2label 'messages up to that latency, per "
	      "cent'\n"
	      "set yrange [0:*]\nset y2range [0:100]\nset y2tics\nset ytics nomirror\n",
	      file);
	/* gnuplot cannot choose a range for a single value. */
	fprintf(file, "set xrange [%g:%g]\n$latency << END\n", low / STEP / 1e3, high * STEP / 1e3);
	while (edge < high) {
		double next = edge * STEP;
		uint64_t from = edge == low ? 0 : (uint64_t) edge, to = (uint64_t) next, count;

		if (to > from) {
			count = histogram_between(latency, from, to);
			seen += count;
			fprintf(file, "%.3f %.5f %.5f\n", edge * (1 + STEP) / 2 / 1e3,
				100.0 * (double) count / (double) latency->count,
				100.0 * (double) seen / (double) latency->count);
		}
		edge = next;
	}
	fputs("END\nplot $latency using 1:2 with boxes fill solid 0.5 noborder linecolor rgb '#4477aa' title "
	      "'messages', "
	      "$latency using 1:3 axes x1y2 with lines linewidth 2 linecolor rgb '#ee6677' title 'no "
	      "slower'\n",
	      file);
}

/* Run gnuplot. Without "set output" it writes the picture to standard output. */
static int tool_run(int script, int picture)
{
	posix_spawn_file_actions_t actions;
	char *argv[] = { (char[]) { TOOL }, NULL };
	int status = 0, r;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, script, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, picture, STDOUT_FILENO);
	r = posix_spawnp(&pid, TOOL, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* Write the script and run gnuplot. Returns 0 or -errno. */
static int picture_write(const struct load_report *report, int picture)
{
	FILE *script = tmpfile();
	int r = 0;

	if (!script)
		return -errno;
	script_write(script, report);
	if (fflush(script) != 0 || ferror(script))
		r = -EIO;
	rewind(script);
	if (r == 0)
		r = tool_run(fileno(script), picture);
	fclose(script);
	return r;
}

int plot_draw(const struct load_report *report, const char *path)
{
	struct outfile file;
	int r;

	if (report->latency.count == 0) {
		client_error(OUTCOME_USAGE, "--plot: nothing to draw, no message came back");
		return -ENODATA;
	}
	r = outfile_open(&file, path);
	if (r == 0)
		r = outfile_close(&file, picture_write(report, file.fd));
	if (r < 0)
		client_error(OUTCOME_USAGE, "--plot: cannot draw %s: %s", path,
			     r == -EIO ? TOOL " failed" : strerror(-r));
	return r;
}
