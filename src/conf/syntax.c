/* SPDX-License-Identifier: ISC */
#include <config.h>

#include "conf/syntax.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/quote.h"
#include "base/suggest.h"
#include "conf/schema.h"

enum token_kind {
	TOKEN_END,
	TOKEN_WORD,   /* unquoted text, or a variable */
	TOKEN_STRING, /* quoted text */
	TOKEN_SIGN,   /* one of { } ( ) , = or the two of += */
	TOKEN_INVALID, /* `problem` says why */
};

struct token {
	enum token_kind kind;
	char *start, *end;
	unsigned line;
	const char *problem; /* the rest of a sentence that begins with the text of the token */
};

struct parser {
	char *at, *end; /* not read yet */
	unsigned line;
	unsigned section_line; /* of the outermost section that is open */
	unsigned sections;     /* number of open sections */
	char empty_variable[SYNTAX_VARIABLE_MAX]; /* the one of this statement */
	bool cut;              /* an unclosed comment includes the rest: report nothing else as missing */
	struct syntax_key *keys;
	struct diagnostics *diag;
	const char *name; /* of the file */
};

static const char *const key_value_form = "a setting is written KEY = VALUE";
static const char *const why_variable =
	"has \"${\" without a variable; write \"${NAME}\", or \"\\${\" for the characters themselves";

/* ---- tokens ---- */

/* Overwrite with spaces, except newlines. */
static void blank(char *from, const char *to)
{
	for (; from < to; from++) {
		if (*from != '\n')
			*from = ' ';
	}
}

/* Whether libconfuse reads `c` as part of a word. It ignores "*" and "+" after a word silently. */
static bool is_word_char(char c)
{
	return c != '\0' && !strchr(" \t\r\n#\"'={}()+,*", c);
}

/* Returns the end of the variable "${NAME}" or "${NAME:-default}" that begins at `at`; NULL if it has another
 * form. Sets
 * `*problem` if libconfuse would replace it silently by nothing. */
static char *variable_end(struct parser *parser, char *at, const char **problem)
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
		snprintf(parser->empty_variable, sizeof parser->empty_variable, "%s", name);
	if (!has_default && !value)
		*problem = "names an environment variable that is not set; set it, write "
		           "\"${NAME:-default}\", "
			   "or write the value itself";
	*end = saved;
	return close + 1;
}

/* Read a quoted string at `parser->at` into `token`. */
static void read_string(struct parser *parser, struct token *token)
{
	char mark = *parser->at++;

	token->kind = TOKEN_STRING;
	while (*parser->at != mark) {
		char *at = parser->at;

		if (*at == '\0' || *at == '\n' || (*at == '\\' && (at[1] == '\n' || at[1] == '\0'))) {
			token->problem = mark == '"' ? "is a string without its closing \" on the same line"
			                             : "is a string without its closing ' on the same line";
			parser->at += *at == '\\';
			return;
		}
		parser->at = at + 1;
		if (*at == '\\') {
			parser->at = at + 2;
			if (mark == '"' && strchr("0123456789x", at[1]))
				token->problem = "has a character given by its number; write the character "
				                 "itself, and \\\\ for a backslash";
		} else if (mark == '"' && *at == '$' && at[1] == '{') {
			char *end = variable_end(parser, at, &token->problem);

			if (end)
				parser->at = end;
			else
				token->problem = why_variable;
		}
	}
	parser->at++;
}

static void read_word(struct parser *parser, struct token *token)
{
	token->kind = TOKEN_WORD;
	if (parser->at[0] == '$' && parser->at[1] == '{') {
		char *end = variable_end(parser, parser->at, &token->problem);

		if (!end)
			token->problem = why_variable;
		parser->at = end ? end : parser->at + strcspn(parser->at, " \t\r\n,=\"'");
		return;
	}
	while (is_word_char(*parser->at))
		parser->at++;
	if (*parser->at == '\0' || !strchr("#*+", *parser->at) || strncmp(parser->at, "+=", 2) == 0)
		return;
	/* libconfuse would ignore this character, or read the rest of the value as a comment */
	token->problem = "has a character that needs quotes; put the value in double quotes "
	                 "(or a blank before a comment)";
	parser->at += *parser->at == '#' ? strcspn(parser->at, "\n")
	                                 : strcspn(parser->at, " \t\r\n,{}()=\"'");
}

/* Skip spaces and comments. Returns false if a comment has no end. Comments are overwritten, because
 * libconfuse 3.3 counts their lines wrong and rejects them inside a list. */
static bool skip_blanks(struct parser *parser)
{
	for (; parser->at < parser->end; parser->at++) {
		char *start = parser->at;

		if (*start == '\n') {
			parser->line++;
		} else if (*start == '#' || (start[0] == '/' && start[1] == '/')) {
			parser->at += strcspn(start, "\n");
			blank(start, parser->at--);
		} else if (start[0] == '/' && start[1] == '*') {
			char *close = strstr(start + 2, "*/");

			if (!close)
				return false;
			blank(start, close + 2);
			parser->at--;
		} else if (!strchr(" \t\r", *start)) {
			break;
		}
	}
	return true;
}

/* Read the next token. */
static struct token token_next(struct parser *parser)
{
	bool clean = skip_blanks(parser);
	struct token token = { .start = parser->at, .line = parser->line };

	if (!clean) {
		token.problem = "begins a comment that never ends; close it with \"*/\"";
		parser->at = parser->end;
	} else if (parser->at == parser->end) {
		token.kind = TOKEN_END;
	} else if (*parser->at == '"' || *parser->at == '\'') {
		read_string(parser, &token);
	} else if (strchr("{}(),=", *parser->at)) {
		token.kind = TOKEN_SIGN;
		parser->at++;
	} else if (parser->at[0] == '+' && parser->at[1] == '=') {
		token.kind = TOKEN_SIGN;
		parser->at += 2;
	} else {
		read_word(parser, &token);
	}
	token.end = clean ? parser->at : token.start + 2;
	if (token.problem)
		token.kind = TOKEN_INVALID;
	return token;
}

static struct token token_peek(const struct parser *parser)
{
	struct parser ahead = *parser;

	return token_next(&ahead);
}

static bool is_sign(const struct token *token, char sign)
{
	return token->kind == TOKEN_SIGN && *token->start == sign;
}

static bool is_text(const struct token *token)
{
	return token->kind == TOKEN_WORD || token->kind == TOKEN_STRING;
}

/* Whether a statement begins here, or the file ends. A name followed by its sign always begins a statement,
 * so that an unclosed list or section before it does not include it. */
static bool at_statement(const struct parser *parser)
{
	struct parser ahead = *parser;
	struct token name = token_next(&ahead), sign = token_next(&ahead);

	return name.kind == TOKEN_END ||
	       (name.kind == TOKEN_WORD &&
	        (is_sign(&sign, '=') || is_sign(&sign, '+') || is_sign(&sign, '(')));
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

/* The name of a setting for a message: plain if it is a key, quoted otherwise. */
static char *print_name(char out[static QUOTE_MAX], const struct token *name)
{
	int key = find_key(name);

	return key >= 0 ? strcpy(out, schema[key].name)
	                : quote(out, name->start, (size_t) (name->end - name->start));
}

/* The text of a token for a message, without the quotes of the file. */
static char *print_token(char out[static QUOTE_MAX], const struct token *token)
{
	const char *start = token->start, *end = token->end;

	if (*start == '"' || *start == '\'') {
		end -= end > start + 1 && end[-1] == *start;
		start++;
	}
	return quote(out, start, (size_t) (end - start));
}

/* Report an invalid token, in the statement `name` or, if NULL, outside of statements. */
static void error_token(struct parser *parser, const struct token *name, const struct token *token)
{
	char shown[QUOTE_MAX], named[QUOTE_MAX];

	if (strncmp(token->start, "/*", 2) == 0)
		parser->cut = true;
	/* the line of the key; for an unclosed comment, the line of the comment */
	if (name && !parser->cut)
		diag_add_at(parser->diag, parser->name, name->line, "%s: %s %s", print_name(named, name),
		            print_token(shown, token), token->problem);
	else
		diag_add_at(parser->diag, parser->name, token->line, "%s %s", print_token(shown, token),
		            token->problem);
}

/* Report that the statement `name` has `token` where `expected` should be. */
static void error_unexpected(struct parser *parser, const struct token *name, const struct token *token,
                            const char *expected)
{
	char shown[QUOTE_MAX], named[QUOTE_MAX];

	diag_add_at(parser->diag, parser->name, name->line, "%s: %s, not %s", print_name(named, name),
	            expected, print_token(shown, token));
}

/* Skip to the next statement, so that one error is reported once. */
static void skip_statement(struct parser *parser)
{
	while (!at_statement(parser)) {
		struct token token = token_peek(parser);

		/* read_other() counts the ends of sections */
		if (is_sign(&token, '}') && parser->sections > 0)
			return;
		if (token.kind == TOKEN_INVALID)
			error_token(parser, NULL, &token);
		token_next(parser);
	}
}

/* Read the list after "{". Returns whether it is valid. */
static bool read_list(struct parser *parser, const struct token *name)
{
	bool valid = true, no_comma = false, after_value = false;
	char named[QUOTE_MAX];
	unsigned depth = 1;

	while (depth > 0) {
		struct token token = token_peek(parser);

		if (at_statement(parser)) {
			if (parser->cut)
				return false;
			diag_add_at(parser->diag, parser->name, name->line,
			            "%s: the list is never closed; end it with }", print_name(named, name));
			return false;
		}
		token_next(parser);
		if (token.kind == TOKEN_INVALID) {
			error_token(parser, name, &token);
			valid = false;
			after_value = true;
		} else if (is_sign(&token, '}')) {
			depth--;
		} else if (is_sign(&token, '{')) {
			if (depth++ == 1)
				error_unexpected(parser, name, &token, "a list holds values alone");
			valid = false;
		} else if (is_sign(&token, ',') && after_value) {
			after_value = false;
		} else if (is_text(&token) && !after_value) {
			after_value = true;
		} else {
			if (!no_comma)
				error_unexpected(parser, name, &token,
				                 "values in a list have one comma between them");
			no_comma = true;
			valid = false;
			after_value = is_text(&token);
		}
	}
	return valid;
}

/* Read the value after "=". Returns whether it is valid. */
static bool read_value(struct parser *parser, const struct token *name, int key)
{
	struct token token = token_peek(parser);
	char named[QUOTE_MAX];
	bool list;

	if (at_statement(parser) || is_sign(&token, '}')) {
		diag_add_at(parser->diag, parser->name, name->line, "%s: no value after the \"=\"; %s",
		             print_name(named, name), key_value_form);
		return false;
	}
	token_next(parser);
	list = is_sign(&token, '{');
	if (list) {
		bool valid = read_list(parser, name);

		if (key < 0 || schema_is_list((enum conf_key) key))
			return valid;
		if (valid)
			diag_add_at(parser->diag, parser->name, name->line,
			            "%s: a list where one value belongs; write %s = %s", schema[key].name,
			            schema[key].name, "VALUE without { }");
		return false;
	}
	if (is_text(&token))
		return true;
	if (token.kind == TOKEN_INVALID)
		error_token(parser, name, &token);
	else
		error_unexpected(parser, name, &token, "a value belongs after the \"=\"");
	return false;
}

static void error_unknown_key(struct parser *parser, const struct token *name)
{
	char shown[QUOTE_MAX];
	const char *nearest;
	char saved = *name->end;

	*name->end = '\0';
	nearest = suggest_nearest(name->start, schema_names);
	*name->end = saved;
	if (nearest)
		diag_add_at(parser->diag, parser->name, name->line, "unknown key %s; did you mean \"%s\"?",
		             print_token(shown, name), nearest);
	else
		diag_add_at(parser->diag, parser->name, name->line,
		            "unknown key %s; echod.conf(5) and \"echod -T\" list all keys",
		            print_token(shown, name));
}

/* Read a statement from its "=" or "+=" on. Returns whether it is valid. */
static bool read_setting(struct parser *parser, const struct token *name)
{
	int key = find_key(name);
	struct token sign = token_next(parser);
	bool valid;

	*parser->empty_variable = '\0';
	valid = read_value(parser, name, key);
	if (key < 0) {
		error_unknown_key(parser, name);
		return false;
	}
	if (parser->keys[key].line > 0) {
		diag_add_at(parser->diag, parser->name, name->line,
		            "%s: given twice, first in line %u; keep one of them", schema[key].name,
		            parser->keys[key].line);
		return false;
	}
	parser->keys[key].line = name->line;
	memcpy(parser->keys[key].empty_variable, parser->empty_variable, sizeof parser->empty_variable);
	if (*sign.start == '+') {
		diag_add_at(parser->diag, parser->name, name->line,
		            "%s: \"+=\" is not offered; write the whole value after \"=\"", schema[key].name);
		valid = false;
	}
	parser->keys[key].invalid = !valid;
	return valid;
}

/* Report a function call such as "include(...)". */
static void read_call(struct parser *parser, const struct token *name)
{
	char shown[QUOTE_MAX];
	bool include = name->end - name->start == 7 && memcmp(name->start, "include", 7) == 0;
	struct token token;

	diag_add_at(parser->diag, parser->name, name->line, "%s is a call, and echod.conf has none; %s",
	            print_token(shown, name),
	            include ? "put the settings of all files into this one" : key_value_form);
	do {
		token = token_next(parser);
	} while (!is_sign(&token, ')') && !at_statement(parser));
}

/* If a section begins here, "NAME {" or "NAME TITLE {", report it and return true. Its settings are then read
 * as if they were outside of it. */
static bool read_section(struct parser *parser, const struct token *name)
{
	struct parser ahead = *parser;
	struct token token = token_next(&ahead);
	char shown[QUOTE_MAX];

	if (is_text(&token))
		token = token_next(&ahead);
	if (!is_sign(&token, '{'))
		return false;
	*parser = ahead;
	diag_add_at(parser->diag, parser->name, name->line,
	             "%s is a section, and echod.conf has none; write its settings without it, KEY = VALUE",
	             print_token(shown, name));
	if (parser->sections++ == 0)
		parser->section_line = name->line;
	return true;
}

/* Read anything that is neither a setting nor a call nor the start of a section. */
static void read_other(struct parser *parser, const struct token *token)
{
	char shown[QUOTE_MAX];
	int key = token->kind == TOKEN_WORD ? find_key(token) : -1;

	if (is_sign(token, '}') && parser->sections > 0) {
		parser->sections--;
		return;
	}
	if (token->kind == TOKEN_INVALID) {
		error_token(parser, NULL, token);
	} else if (key >= 0) {
		diag_add_at(parser->diag, parser->name, token->line, "%s: no \"=\" after it; %s",
		            schema[key].name, key_value_form);
		if (parser->keys[key].line == 0)
			parser->keys[key] = (struct syntax_key) { .line = token->line, .invalid = true };
	} else {
		diag_add_at(parser->diag, parser->name, token->line, "%s does not belong here; %s",
		            print_token(shown, token), key_value_form);
	}
	skip_statement(parser);
}

static void read_statement(struct parser *parser, const struct token *name)
{
	struct token sign = token_peek(parser);
	bool valid = false;

	if (name->kind == TOKEN_WORD && (is_sign(&sign, '=') || is_sign(&sign, '+')))
		valid = read_setting(parser, name);
	else if (name->kind == TOKEN_WORD && is_sign(&sign, '('))
		read_call(parser, name);
	else if (name->kind != TOKEN_WORD || find_key(name) >= 0 || !read_section(parser, name))
		read_other(parser, name);
	if (!valid)
		blank(name->start, parser->at);
}

void syntax_check(char *text, size_t length, struct syntax_key keys[static CONF_KEYS], const char *name,
                  struct diagnostics *diag)
{
	struct parser parser = {
		.at = text, .end = text + length, .line = 1, .keys = keys, .name = name, .diag = diag
	};
	struct token token;

	memset(keys, 0, CONF_KEYS * sizeof *keys);
	while ((token = token_next(&parser)).kind != TOKEN_END)
		read_statement(&parser, &token);
	if (parser.sections > 0 && !parser.cut)
		diag_add_at(diag, name, parser.section_line,
		            "the section that begins here is never closed; %s", key_value_form);
}
