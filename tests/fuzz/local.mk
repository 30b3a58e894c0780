# SPDX-License-Identifier: ISC
# Fuzz targets: one program a source file of the same name. Seeds are in tests/fuzz/corpus/NAME,
# words in tests/fuzz/NAME.dict, both optional.
#
#   make fuzz FUZZ_TIME=60        each target for 60 s (needs clang)

fuzzers = \
	tests/fuzz/fuzz_addr \
	tests/fuzz/fuzz_client_options \
	tests/fuzz/fuzz_conf \
	tests/fuzz/fuzz_conn \
	tests/fuzz/fuzz_dgram \
	tests/fuzz/fuzz_fdnames \
	tests/fuzz/fuzz_options \
	tests/fuzz/fuzz_proxy \
	tests/fuzz/fuzz_record \
	tests/fuzz/fuzz_state

tests_fuzz_fuzz_addr_SOURCES = tests/fuzz/fuzz_addr.c $(fuzz_main)
tests_fuzz_fuzz_client_options_SOURCES = tests/fuzz/fuzz_client_options.c $(fuzz_main)
tests_fuzz_fuzz_client_options_LDADD = libechoc.a $(LDADD)
tests_fuzz_fuzz_conf_SOURCES = tests/fuzz/fuzz_conf.c $(fuzz_main)
tests_fuzz_fuzz_conn_SOURCES = tests/fuzz/fuzz_conn.c $(fuzz_main)
tests_fuzz_fuzz_dgram_SOURCES = tests/fuzz/fuzz_dgram.c $(fuzz_main)
tests_fuzz_fuzz_fdnames_SOURCES = tests/fuzz/fuzz_fdnames.c $(fuzz_main)
tests_fuzz_fuzz_options_SOURCES = tests/fuzz/fuzz_options.c $(fuzz_main)
tests_fuzz_fuzz_proxy_SOURCES = tests/fuzz/fuzz_proxy.c $(fuzz_main)
tests_fuzz_fuzz_record_SOURCES = tests/fuzz/fuzz_record.c $(fuzz_main)
tests_fuzz_fuzz_state_SOURCES = tests/fuzz/fuzz_state.c $(fuzz_main)

# libFuzzer generates inputs. Without it the same programs try the stored inputs in "make check".
if FUZZING
fuzz_main = tests/fuzz/fuzz.h
EXTRA_PROGRAMS += $(fuzzers)
else
fuzz_main = tests/fuzz/fuzz.h tests/fuzz/replay.c
check_PROGRAMS += $(fuzzers)
TESTS += tests/fuzz.test
endif

EXTRA_DIST += \
	tests/fuzz.test \
	tests/run-fuzz

FUZZ_TIME = 30
FUZZ_CC = clang

if FUZZING
fuzz: $(fuzzers)
	@FUZZ_TIME='$(FUZZ_TIME)' $(SHELL) $(srcdir)/tests/run-fuzz '$(srcdir)/tests/fuzz' $(fuzzers)
else
fuzz:
	@$(MKDIR_P) fuzz-build
	@cd fuzz-build && { test -f Makefile || $(configure_below) -q --enable-fuzzing CC='$(FUZZ_CC)' CFLAGS='-O1 -g'; }
	@cd fuzz-build && $(MAKE) $(AM_MAKEFLAGS) fuzz
endif
.PHONY: fuzz
