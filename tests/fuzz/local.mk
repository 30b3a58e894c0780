# libFuzzer targets: one program a source file of the same name. Seeds are in
# tests/fuzz/corpus/NAME, words in tests/fuzz/NAME.dict, both optional.
#
#   make fuzz FUZZ_TIME=60        every target for 60 s each (needs clang)

fuzzers =

EXTRA_PROGRAMS += $(fuzzers)
EXTRA_DIST += tests/run-fuzz

FUZZ_TIME = 30
FUZZ_CC = clang

if FUZZING
fuzz: $(fuzzers)
	@FUZZ_TIME='$(FUZZ_TIME)' $(SHELL) $(srcdir)/tests/run-fuzz '$(srcdir)/tests/fuzz' $(fuzzers)
else
fuzz:
	@$(MKDIR_P) fuzz-build
	@cd fuzz-build && { test -f Makefile || $(abs_srcdir)/configure -q --enable-fuzzing CC='$(FUZZ_CC)' CFLAGS='-O1 -g'; }
	@cd fuzz-build && $(MAKE) $(AM_MAKEFLAGS) fuzz
endif
.PHONY: fuzz
