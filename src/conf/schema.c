/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/decimal.h"
#include "base/quote.h"
#include "base/suggest.h"
#include "conf/keys.h"

#define ROW(key, text, kind, field, ...) \
	[CONF_##key] = { .name = text, .type = SCHEMA_##kind, .offset = offsetof(struct conf, field), \
	                 /* NOLINTNEXTLINE(bugprone-sizeof-expression): a field may be a pointer */ \
	                 .size = sizeof ((struct conf *) NULL)->field, __VA_ARGS__ },
#define NAME(key, text, ...) [CONF_##key] = text,

const struct schema schema[CONF_KEYS] = { CONF_KEY_TABLE(ROW) };
const char *const schema_names[CONF_KEYS + 1] = { CONF_KEY_TABLE(NAME) };

const char *const conf_log_target_names[] = { "auto", "journal", "syslog", "stderr", NULL };
const char *const conf_log_level_names[] = { "err", "warning", "notice", "info", "debug", NULL };

const char *conf_key_name(enum conf_key key)
{
	return schema[key].name;
}

int schema_number(enum conf_key key, const char *text, int64_t *value, char why[static SCHEMA_WHY_MAX])
{
	const struct schema *row = &schema[key];
	uint64_t number;
	int r = decimal_parse(text, (uint64_t) row->max, &number);
	char shown[QUOTE_MAX];

	*value = (int64_t) number;
	if (r == 0 && (*value >= row->min || (row->zero && *value == 0)))
		return 0;
	snprintf(why, SCHEMA_WHY_MAX, "%s is not %sa whole number from %" PRId64 " to %" PRId64 "%s%s",
	         quote_string(shown, text), row->zero ? "0 or " : "", row->min, row->max,
	         row->unit ? row->unit : "",
	         r == -EINVAL ? ", written in decimal digits without leading zeros" : "");
	return -EINVAL;
}

int schema_choice(const char *text, const char *const names[], const char *noun,
                  char why[static SCHEMA_WHY_MAX])
{
	char shown[QUOTE_MAX], all[256];
	const char *nearest;

	for (int i = 0; names[i]; i++) {
		if (strcmp(names[i], text) == 0)
			return i;
	}
	nearest = suggest_nearest(text, names);
	snprintf(why, SCHEMA_WHY_MAX, "%s is not a %s%s%s%s; it must be %s", quote_string(shown, text), noun,
	         nearest ? " (did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?)" : "",
	         suggest_join(all, sizeof all, names));
	return -EINVAL;
}
