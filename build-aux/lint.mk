# SPDX-License-Identifier: ISC
# Static checks; each can be run alone. They need a configured build for config.h.

lint_flags = -DHAVE_CONFIG_H -I. -I$(srcdir)/src -DSYSCONFDIR=\"/etc\"
lint_scripts = { echo $(srcdir)/bootstrap; echo $(srcdir)/.ci/run; \
	grep -rlE '^.! ?/bin/(ba|da)?sh' $(srcdir)/tests $(srcdir)/systemd; } | sort -u

lint: lint-lists lint-spdx lint-includes lint-width lint-prose lint-spelling lint-cppcheck lint-clang-tidy lint-shellcheck lint-man

lint-cppcheck:
	find $(srcdir)/src -name '*.c' | sort | xargs cppcheck --quiet -j 2 --std=c11 --error-exitcode=1 \
		--enable=warning,performance,portability --inline-suppr --library=posix,gnu \
		--suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches \
		--suppressions-list=$(srcdir)/build-aux/cppcheck.suppressions \
		-D__linux__ -D__GNUC__ $(lint_flags)

# One file a run: with several, clang-analyzer 14 mixes up their va_lists. On standard error it
# only counts the warnings it suppressed.
lint-clang-tidy:
	find $(srcdir)/src -name '*.c' | sort | xargs -n 1 -P 2 sh -c \
		'clang-tidy --quiet --warnings-as-errors="*" "$$0" -- $(lint_flags) -std=gnu11 2>/dev/null'

lint-shellcheck:
	$(lint_scripts) | xargs shellcheck

lint-man:
	cd $(srcdir) && mandoc -T lint -W warning $(dist_man_MANS)

EXTRA_DIST += build-aux/cppcheck.suppressions
.PHONY: lint lint-cppcheck lint-clang-tidy lint-shellcheck lint-man

# Each source is in a list, or it would be missing from the tarball. What git ignores, container engines ignore too.
lint-lists:
	@cd $(srcdir) && status=0; for file in `find src tests -name '*.[ch]'`; do \
		grep -qF "$$file" src/local.mk src/client/local.mk tests/local.mk tests/bench/local.mk tests/fuzz/local.mk || \
		case $$file in tests/*.c) grep -qF "$${file%.c}" tests/local.mk tests/bench/local.mk tests/fuzz/local.mk;; *) false;; esac || \
		grep -qF "	$${file%/*} \\" tests/local.mk || \
		{ echo "$$file is in no list"; status=1; }; \
	done; \
	$(SED) -e '/^#/d' -e '/^$$/d' -e 's|/$$||' -e 't a' -e ':a' -e 's|^/||' -e t -e '/\//!s|^|**/|' .gitignore | \
		grep -vxFf .dockerignore && { echo ".dockerignore lacks these lines, from .gitignore"; status=1; }; \
	exit $$status
.PHONY: lint-lists

# The first or second line of each source names the licence (https://spdx.dev/learn/handling-license-info/).
lint-spdx:
	@cd $(srcdir) && status=0; \
	for file in `find src tests build-aux etc man m4 systemd -name '*.[ch]' -o -name '*.py' -o -name '*.mk' -o -name '*.m4'` \
		`grep -rlE '^.!' --exclude-dir=corpus tests build-aux/debian build-aux/lint-* etc bootstrap .ci` Makefile.am configure.ac; do \
		head -n 2 $$file | grep -q 'SPDX-License-Identifier: ISC' || { echo "$$file: no SPDX-License-Identifier"; status=1; }; \
	done; exit $$status
.PHONY: lint-spdx

# Modules include in one direction (HACKING.md); no cycles.
lint-includes:
	$(srcdir)/build-aux/lint-includes

# Words that comments and manuals do not use.
lint-prose:
	$(srcdir)/build-aux/lint-prose

# Tests of suggestions for misspelt names are full of them.
lint-spelling:
	cd $(srcdir) && codespell --ignore-words-list=nd,hel,strem,slect,proccess,jornal src tests/*.md tests/lib tests/unit \
		tests/client tests/limits tests/persistence tests/system tests/systemd man systemd etc/echod.conf *.md bootstrap configure.ac

.PHONY: lint-includes lint-prose lint-spelling
EXTRA_DIST += build-aux/lint-includes build-aux/lint-prose

# Format the lines that differ from FORMAT_BASE as .clang-format says; the tree as a whole is not formatted by a program.
FORMAT_BASE = HEAD
format:
	cd $(srcdir) && git clang-format --extensions c,h $(FORMAT_BASE)

.PHONY: format

# At most 110 columns.
lint-width:
	$(srcdir)/build-aux/lint-width

.PHONY: lint-width
EXTRA_DIST += build-aux/lint-width
