/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/scan.h"

#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "base/quote.h"
#include "conf/schema.h"

enum token_kind {
	TOKEN_END,
	TOKEN_WORD,   /* unquoted text, or a variable */
	TOKEN_STRING, /* quoted text */
	TOKEN_SIGN,   /* one of { } ( ) , = or the two of += */
	TOKEN_BROKEN, /* `problem` says why */
};

struct token {
	enum token_kind kind;
	char *start, *end;
	unsigned line;
	const char *problem; /* a sentence that goes on after the token's text */
};

struct scan {
	char *at, *end; /* not looked at yet */
	unsigned line;
	unsigned section_line; /* of the outermost "{" that was opened as a section and not closed yet */
	unsigned sections;     /* how many are open */
	char empty_variable[SCAN_VARIABLE_MAX]; /* met in this statement */
	bool cut;              /* a comment without an end took the rest: nothing else there is missing */
	struct scan_key *keys;
	struct mistakes *mistakes;
};

static const char *const key_value_form = "a setting is written KEY = VALUE";
static const char *const why_variable =
	"has \"${\" without a variable; write \"${NAME}\", or \"\\${\" for the characters themselves";

/* ---- tokens ---- */

/* Overwrite with blanks, but keep the lines. */
static void blank(char *from, const char *to)
{
	for (; from < to; from++) {
		if (*from != '\n')
			*from = ' ';
	}
}

/* What ends a word for libconfuse, which then drops "*" and "+" without a word of its own. */
static bool is_word_char(char c)
{
	return c != '\0' && !strchr(" \t\r\n#\"'={}()+,*", c);
}

/* The end of the variable "${NAME}" or "${NAME:-default}" that begins at `at`, with `*problem` set if
 * libconfuse would put nothing, silently, in its place; NULL where it has no proper form. */
static char *variable_end(struct scan *scan, char *at, const char **problem)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
	char *name = at + 2, *end = name + strspn(name, letters), *close = end;
	bool has_default = strncmp(end, ":-", 2) == 0;
	const char *value;
	char saved = *end;

	if (has_default)
		close = end + strcspn(end, "}\"'\n");
	if (end == name || *close != '}')
		return NULL;
	*end = '\0';
	value = getenv(name);
	if (value && !*value)
		snprintf(scan->empty_variable, sizeof scan->empty_variable, "%s", name);
	if (!has_default && !value)
		*problem = "names an environment variable that is not set; set it, write \"${NAME:-default}\", "
		           "or write the value itself";
	*end = saved;
	return close + 1;
}

/* Read a quoted string at `scan->at` into `token`. */
static void read_string(struct scan *scan, struct token *token)
{
	char mark = *scan->at++;

	token->kind = TOKEN_STRING;
	while (*scan->at != mark) {
		char *at = scan->at;

		if (*at == '\0' || *at == '\n' || (*at == '\\' && (at[1] == '\n' || at[1] == '\0'))) {
			token->problem = mark == '"' ? "is a string without its closing \" on the same line"
			                             : "is a string without its closing ' on the same line";
			scan->at += *at == '\\';
			return;
		}
		scan->at = at + 1;
		if (*at == '\\') {
			scan->at = at + 2;
			if (mark == '"' && strchr("0123456789x", at[1]))
				token->problem = "has a character given by its number; write the character "
				                 "itself, and \\\\ for a backslash";
		} else if (mark == '"' && *at == '$' && at[1] == '{') {
			char *end = variable_end(scan, at, &token->problem);

			if (end)
				scan->at = end;
			else
				token->problem = why_variable;
		}
	}
	scan->at++;
}

static void read_word(struct scan *scan, struct token *token)
{
	token->kind = TOKEN_WORD;
	if (scan->at[0] == '$' && scan->at[1] == '{') {
		char *end = variable_end(scan, scan->at, &token->problem);

		if (!end)
			token->problem = why_variable;
		scan->at = end ? end : scan->at + strcspn(scan->at, " \t\r\n,=\"'");
		return;
	}
	while (is_word_char(*scan->at))
		scan->at++;
	if (*scan->at == '\0' || !strchr("#*+", *scan->at) || strncmp(scan->at, "+=", 2) == 0)
		return;
	/* libconfuse would drop this character, or take the rest of the value for a comment. */
	token->problem = "has a character that needs quotes; put the value in double quotes "
	                 "(or a blank before a comment)";
	scan->at += *scan->at == '#' ? strcspn(scan->at, "\n") : strcspn(scan->at, " \t\r\n,{}()=\"'");
}

/* Pass blanks and comments; false where a comment has no end. Comments are blanked: libconfuse 3.3
 * miscounts the lines of some and refuses them inside a list. */
static bool pass_blanks(struct scan *scan)
{
	for (; scan->at < scan->end; scan->at++) {
		char *start = scan->at;

		if (*start == '\n') {
			scan->line++;
		} else if (*start == '#' || (start[0] == '/' && start[1] == '/')) {
			scan->at += strcspn(start, "\n");
			blank(start, scan->at--);
		} else if (start[0] == '/' && start[1] == '*') {
			char *close = strstr(start + 2, "*/");

			if (!close)
				return false;
			blank(start, close + 2);
			scan->at--;
		} else if (!strchr(" \t\r", *start)) {
			break;
		}
	}
	return true;
}

/* Take the next token. */
static struct token take(struct scan *scan)
{
	bool clean = pass_blanks(scan);
	struct token token = { .start = scan->at, .line = scan->line };

	if (!clean) {
		token.problem = "begins a comment that never ends; close it with \"*/\"";
		scan->at = scan->end;
	} else if (scan->at == scan->end) {
		token.kind = TOKEN_END;
	} else if (*scan->at == '"' || *scan->at == '\'') {
		read_string(scan, &token);
	} else if (strchr("{}(),=", *scan->at)) {
		token.kind = TOKEN_SIGN;
		scan->at++;
	} else if (scan->at[0] == '+' && scan->at[1] == '=') {
		token.kind = TOKEN_SIGN;
		scan->at += 2;
	} else {
		read_word(scan, &token);
	}
	token.end = clean ? scan->at : token.start + 2;
	if (token.problem)
		token.kind = TOKEN_BROKEN;
	return token;
}

static struct token peek(const struct scan *scan)
{
	struct scan ahead = *scan;

	return take(&ahead);
}

static bool is_sign(const struct token *token, char sign)
{
	return token->kind == TOKEN_SIGN && *token->start == sign;
}

static bool is_text(const struct token *token)
{
	return token->kind == TOKEN_WORD || token->kind == TOKEN_STRING;
}

/* Whether a statement begins here, or the file ends: a name with its sign is a statement wherever it
 * stands, so that whatever was left open before it does not swallow it. */
static bool at_statement(const struct scan *scan)
{
	struct scan ahead = *scan;
	struct token name = take(&ahead), sign = take(&ahead);

	return name.kind == TOKEN_END ||
	       (name.kind == TOKEN_WORD && (is_sign(&sign, '=') || is_sign(&sign, '+') || is_sign(&sign, '(')));
}

/* ---- statements ---- */

static int find_key(const struct token *name)
{
	size_t length = (size_t) (name->end - name->start);

	for (int i = 0; i < CONF_KEYS; i++) {
		if (strlen(schema[i].name) == length && memcmp(schema[i].name, name->start, length) == 0)
			return i;
	}
	return -1;
}

/* The name of a setting as messages have it: plain if it is a key, else as text from outside. */
static char *show_name(char out[static QUOTE_MAX], const struct token *name)
{
	int key = find_key(name);

	return key >= 0 ? strcpy(out, schema[key].name) : quote(out, name->start, (size_t) (name->end - name->start));
}

/* The text of a token for a message, without the quotes of the file. */
static char *show(char out[static QUOTE_MAX], const struct token *token)
{
	const char *start = token->start, *end = token->end;

	if (*start == '"' || *start == '\'') {
		end -= end > start + 1 && end[-1] == *start;
		start++;
	}
	return quote(out, start, (size_t) (end - start));
}

/* Tell what is wrong with a broken token, inside the statement `name` or outside of any (NULL). */
static void tell_broken(struct scan *scan, const struct token *name, const struct token *token)
{
	char shown[QUOTE_MAX], named[QUOTE_MAX];

	if (strncmp(token->start, "/*", 2) == 0)
		scan->cut = true;
	/* The line is that of the key; but nobody would look there for the end of a comment. */
	if (name && !scan->cut)
		mistakes_add(scan->mistakes, name->line, "%s: %s %s", show_name(named, name), show(shown, token),
		             token->problem);
	else
		mistakes_add(scan->mistakes, token->line, "%s %s", show(shown, token), token->problem);
}

/* Tell that something else than `token` was to be expected in the statement `name`. */
static void tell_unexpected(struct scan *scan, const struct token *name, const struct token *token,
                            const char *expected)
{
	char shown[QUOTE_MAX], named[QUOTE_MAX];

	mistakes_add(scan->mistakes, name->line, "%s: %s, not %s", show_name(named, name), expected,
	             show(shown, token));
}

/* Pass everything up to the next statement, so that one mistake is told once. */
static void pass_rest(struct scan *scan)
{
	while (!at_statement(scan)) {
		struct token token = peek(scan);

		/* What closes a section must be seen by the one who counts them. */
		if (is_sign(&token, '}') && scan->sections > 0)
			return;
		if (token.kind == TOKEN_BROKEN)
			tell_broken(scan, NULL, &token);
		take(scan);
	}
}

/* Read the list after "{". Returns whether it is sound. */
static bool read_list(struct scan *scan, const struct token *name)
{
	bool sound = true, unseparated = false, after_value = false;
	char named[QUOTE_MAX];
	unsigned depth = 1;

	while (depth > 0) {
		struct token token = peek(scan);

		if (at_statement(scan)) {
			if (scan->cut)
				return false;
			mistakes_add(scan->mistakes, name->line, "%s: the list is never closed; end it with }",
			             show_name(named, name));
			return false;
		}
		take(scan);
		if (token.kind == TOKEN_BROKEN) {
			tell_broken(scan, name, &token);
			sound = false;
			after_value = true;
		} else if (is_sign(&token, '}')) {
			depth--;
		} else if (is_sign(&token, '{')) {
			if (depth++ == 1)
				tell_unexpected(scan, name, &token, "a list holds values alone");
			sound = false;
		} else if (is_sign(&token, ',') && after_value) {
			after_value = false;
		} else if (is_text(&token) && !after_value) {
			after_value = true;
		} else {
			if (!unseparated)
				tell_unexpected(scan, name, &token, "values in a list have one comma between them");
			unseparated = true;
			sound = false;
			after_value = is_text(&token);
		}
	}
	return sound;
}

/* Read what follows "=". Returns whether it is sound. */
static bool read_value(struct scan *scan, const struct token *name, int key)
{
	struct token token = peek(scan);
	char named[QUOTE_MAX];
	bool list;

	if (at_statement(scan) || is_sign(&token, '}')) {
		mistakes_add(scan->mistakes, name->line, "%s: no value after the \"=\"; %s",
		             show_name(named, name), key_value_form);
		return false;
	}
	take(scan);
	list = is_sign(&token, '{');
	if (list) {
		bool sound = read_list(scan, name);

		if (key < 0 || schema[key].type == SCHEMA_LIST)
			return sound;
		if (sound)
			mistakes_add(scan->mistakes, name->line, "%s: a list where one value belongs; write %s = %s",
			             schema[key].name, schema[key].name, "VALUE without { }");
		return false;
	}
	if (is_text(&token))
		return true;
	if (token.kind == TOKEN_BROKEN)
		tell_broken(scan, name, &token);
	else
		tell_unexpected(scan, name, &token, "a value belongs after the \"=\"");
	return false;
}

static void tell_unknown(struct scan *scan, const struct token *name)
{
	char shown[QUOTE_MAX];
	const char *nearest;
	char saved = *name->end;

	*name->end = '\0';
	nearest = names_nearest(name->start, schema_names);
	*name->end = saved;
	if (nearest)
		mistakes_add(scan->mistakes, name->line, "unknown key %s; did you mean \"%s\"?",
		             show(shown, name), nearest);
	else
		mistakes_add(scan->mistakes, name->line,
		             "unknown key %s; echod.conf(5) and \"echod -T\" list all keys", show(shown, name));
}

/* Read a statement from its "=" or "+=" on, the name being taken already. */
static bool read_setting(struct scan *scan, const struct token *name)
{
	int key = find_key(name);
	struct token sign = take(scan);
	bool sound;

	*scan->empty_variable = '\0';
	sound = read_value(scan, name, key);
	if (key < 0) {
		tell_unknown(scan, name);
		return false;
	}
	if (scan->keys[key].line > 0) {
		mistakes_add(scan->mistakes, name->line, "%s: given twice, first in line %u; keep one of them",
		             schema[key].name, scan->keys[key].line);
		return false;
	}
	scan->keys[key].line = name->line;
	memcpy(scan->keys[key].empty_variable, scan->empty_variable, sizeof scan->empty_variable);
	if (*sign.start == '+') {
		mistakes_add(scan->mistakes, name->line, "%s: \"+=\" is not offered; write the whole value after \"=\"",
		             schema[key].name);
		sound = false;
	}
	scan->keys[key].broken = !sound;
	return sound;
}

/* Something like "include(...)". */
static void read_call(struct scan *scan, const struct token *name)
{
	char shown[QUOTE_MAX];
	bool include = name->end - name->start == 7 && memcmp(name->start, "include", 7) == 0;
	struct token token;

	mistakes_add(scan->mistakes, name->line, "%s is a call, and echod.conf has none; %s", show(shown, name),
	             include ? "put the settings of all files into this one" : key_value_form);
	do {
		token = take(scan);
	} while (token.kind != TOKEN_END && !is_sign(&token, ')') && !at_statement(scan));
}

/* A section, "NAME {" or "NAME TITLE {": told, and its settings then read as if it were not there. */
static bool read_section(struct scan *scan, const struct token *name)
{
	struct scan ahead = *scan;
	struct token token = take(&ahead);
	char shown[QUOTE_MAX];

	if (is_text(&token))
		token = take(&ahead);
	if (!is_sign(&token, '{'))
		return false;
	*scan = ahead;
	mistakes_add(scan->mistakes, name->line,
	             "%s is a section, and echod.conf has none; write its settings without it, KEY = VALUE",
	             show(shown, name));
	if (scan->sections++ == 0)
		scan->section_line = name->line;
	return true;
}

/* What begins neither a setting nor anything else that has a name. */
static void read_other(struct scan *scan, const struct token *token)
{
	char shown[QUOTE_MAX];
	int key = token->kind == TOKEN_WORD ? find_key(token) : -1;

	if (is_sign(token, '}') && scan->sections > 0) {
		scan->sections--;
		return;
	}
	if (token->kind == TOKEN_BROKEN) {
		tell_broken(scan, NULL, token);
	} else if (key >= 0) {
		mistakes_add(scan->mistakes, token->line, "%s: no \"=\" after it; %s", schema[key].name, key_value_form);
		if (scan->keys[key].line == 0)
			scan->keys[key] = (struct scan_key) { .line = token->line, .broken = true };
	} else {
		mistakes_add(scan->mistakes, token->line, "%s does not belong here; %s", show(shown, token),
		             key_value_form);
	}
	pass_rest(scan);
}

static void read_statement(struct scan *scan, const struct token *name)
{
	struct token sign = peek(scan);
	bool sound = false;

	if (name->kind == TOKEN_WORD && (is_sign(&sign, '=') || is_sign(&sign, '+')))
		sound = read_setting(scan, name);
	else if (name->kind == TOKEN_WORD && is_sign(&sign, '('))
		read_call(scan, name);
	else if (name->kind != TOKEN_WORD || find_key(name) >= 0 || !read_section(scan, name))
		read_other(scan, name);
	if (!sound)
		blank(name->start, scan->at);
}

void scan_text(char *text, size_t length, struct scan_key keys[static CONF_KEYS], struct mistakes *mistakes)
{
	struct scan scan = { .at = text, .end = text + length, .line = 1, .keys = keys, .mistakes = mistakes };
	struct token token;

	memset(keys, 0, CONF_KEYS * sizeof(*keys));
	while ((token = take(&scan)).kind != TOKEN_END)
		read_statement(&scan, &token);
	if (scan.sections > 0 && !scan.cut)
		mistakes_add(mistakes, scan.section_line, "the section that begins here is never closed; %s",
		             key_value_form);
}
