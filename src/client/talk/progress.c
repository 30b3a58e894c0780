/* SPDX-License-Identifier: ISC */
/* progress.c - see progress.h */
#include <config.h>

#include "client/talk/progress.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/numbers.h"
#include "client/nsec.h"

#define DELAY_FIRST NSEC_PER_SEC
#define INTERVAL (NSEC_PER_SEC / 5)

void progress_begin(struct progress *progress, bool quiet)
{
	struct stat about;
	off_t at;

	*progress = (struct progress) { .enabled = !quiet && isatty(STDERR_FILENO), .start = nsec_now() };
	progress->next = progress->start + DELAY_FIRST;
	if (fstat(STDIN_FILENO, &about) == 0 && S_ISREG(about.st_mode)) {
		at = lseek(STDIN_FILENO, 0, SEEK_CUR);
		if (at >= 0 && about.st_size > at)
			progress->total = (uint64_t) (about.st_size - at);
	}
}

uint64_t progress_due(const struct progress *progress)
{
	return progress->enabled ? progress->next : NSEC_NEVER;
}

static void line_print(struct progress *progress, uint64_t sent, uint64_t received, uint64_t now)
{
	char sent_text[NUMBER_TEXT_MAX], received_text[NUMBER_TEXT_MAX], speed_text[NUMBER_TEXT_MAX];
	double seconds = nsec_to_seconds(now - progress->start);
	double speed = seconds > 0 ? (double) received / seconds : 0;

	fprintf(stderr, "\r%s sent, %s back and equal, %s/s", number_bytes(sent_text, (double) sent),
		number_bytes(received_text, (double) received), number_bytes(speed_text, speed));
	if (progress->total >= received && progress->total > 0 && speed > 0)
		fprintf(stderr, ", %.0f %%, %.0f s left",
			100.0 * (double) received / (double) progress->total,
			(double) (progress->total - received) / speed);
	fputs("\033[K", stderr);
	fflush(stderr);
	progress->shown = true;
	progress->received = received;
}

void progress_show(struct progress *progress, uint64_t sent, uint64_t received)
{
	uint64_t now;

	if (!progress->enabled)
		return;
	now = nsec_now();
	if (now < progress->next
	    && !(progress->shown && received == progress->total && received != progress->received))
		return;
	line_print(progress, sent, received, now);
	progress->next = now + INTERVAL;
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputc('\n', stderr);
	progress->shown = progress->enabled = false;
}
