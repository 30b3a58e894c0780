/* progress.c - see progress.h */
#include <config.h>

#include "client/talk/progress.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/numbers.h"
#include "client/nsec.h"

#define FIRST NSEC_PER_SEC
#define EVERY (NSEC_PER_SEC / 5)

void progress_begin(struct progress *progress, bool quiet)
{
	struct stat about;
	off_t at;

	*progress = (struct progress){ .wanted = !quiet && isatty(STDERR_FILENO), .begun = nsec_now() };
	progress->next = progress->begun + FIRST;
	if (fstat(STDIN_FILENO, &about) == 0 && S_ISREG(about.st_mode)) {
		at = lseek(STDIN_FILENO, 0, SEEK_CUR);
		if (at >= 0 && about.st_size > at)
			progress->total = (uint64_t) (about.st_size - at);
	}
}

uint64_t progress_due(const struct progress *progress)
{
	return progress->wanted ? progress->next : NSEC_NEVER;
}

static void line_print(struct progress *progress, uint64_t sent, uint64_t came, uint64_t now)
{
	char sent_text[NUMBER_TEXT_MAX], came_text[NUMBER_TEXT_MAX], speed_text[NUMBER_TEXT_MAX];
	double seconds = nsec_to_seconds(now - progress->begun);
	double speed = seconds > 0 ? (double) came / seconds : 0;

	fprintf(stderr, "\r%s sent, %s back and equal, %s/s", number_bytes(sent_text, (double) sent),
		number_bytes(came_text, (double) came), number_bytes(speed_text, speed));
	if (progress->total >= came && progress->total > 0 && speed > 0)
		fprintf(stderr, ", %.0f %%, %.0f s left", 100.0 * (double) came / (double) progress->total,
			(double) (progress->total - came) / speed);
	fputs("\033[K", stderr);
	fflush(stderr);
	progress->shown = true;
	progress->came = came;
}

void progress_show(struct progress *progress, uint64_t sent, uint64_t came)
{
	uint64_t now;

	if (!progress->wanted)
		return;
	now = nsec_now();
	if (now < progress->next && !(progress->shown && came == progress->total && came != progress->came))
		return;
	line_print(progress, sent, came, now);
	progress->next = now + EVERY;
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputc('\n', stderr);
	progress->shown = progress->wanted = false;
}
