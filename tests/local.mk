# SPDX-License-Identifier: ISC
# Tests speak TAP, so that "make check" counts each one.
#
#   make check              all suites
#   make check-quick        unit tests, fuzz inputs, manual, and the system tests in two models: at most 3 minutes
#
# tests/README.md says more.

# Unit tests: one program a source file of the same name, linked with libechod.a and cmocka.
unit_tests = \
	tests/unit/test_addr \
	tests/unit/test_admission \
	tests/unit/test_admission_order \
	tests/unit/test_base \
	tests/unit/test_compat \
	tests/unit/test_conf \
	tests/unit/test_conf_memory \
	tests/unit/test_conn \
	tests/unit/test_datagram \
	tests/unit/test_decimal \
	tests/unit/test_dgram \
	tests/unit/test_preserve \
	tests/unit/test_model \
	tests/unit/test_suggest \
	tests/unit/test_cidr \
	tests/unit/test_options \
	tests/unit/test_processors \
	tests/unit/test_proxy \
	tests/unit/test_sandbox \
	tests/unit/test_scoreboard \
	tests/unit/test_state \
	tests/unit/test_stats \
	tests/unit/test_supervisor \
	tests/unit/test_session_io \
	tests/unit/test_udp_ratelimit

# Their allocations, and some system calls, are those of the test.
tests_unit_test_admission_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=sched_yield
tests_unit_test_conn_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=realloc
tests_unit_test_scoreboard_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=aligned_alloc,--wrap=mmap,--wrap=mmap64
tests_unit_test_conf_memory_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=reallocarray,--wrap=strdup,--wrap=vasprintf,--wrap=__vasprintf_chk \
	-Wl,--wrap=open_memstream,--wrap=cfg_init,--wrap=cfg_parse_buf,--wrap=read,--wrap=__read_chk

# The same for echoc's pure parts, linked with libechoc.a.
client_tests = \
	tests/unit/test_load_conn \
	tests/unit/test_histogram \
	tests/unit/test_numbers \
	tests/unit/test_pattern \
	tests/unit/test_probes

tests_unit_test_load_conn_LDADD = $(client_test_libs)
tests_unit_test_histogram_LDADD = $(client_test_libs)
tests_unit_test_numbers_LDADD = $(client_test_libs)
tests_unit_test_pattern_LDADD = $(client_test_libs)
tests_unit_test_probes_LDADD = $(client_test_libs)
client_test_libs = libechoc.a libechod.a $(CMOCKA_LIBS) $(LIBURING_LIBS) -lm

# The bodies of the models against a simulated kernel: these functions are replaced (tests/sim/sim.h).
sim_replaced = accept4 calloc clock_gettime close epoll_create1 epoll_ctl epoll_wait eventfd _exit fcntl fcntl64 \
	getsockopt ioctl log_event log_wants malloc memfd_create memfile_size mmap nanosleep pipe2 poll __poll_chk \
	pread pread64 pthread_create pwrite pwrite64 read __read_chk realloc recv __recv_chk recvmsg select send \
	sendmsg setsockopt shutdown splice write \
	__clock_gettime64 __fcntl_time64 __getsockopt64 __ioctl_time64 mmap64 __nanosleep64 __recvmsg64 __select64 \
	__sendmsg64 __setsockopt64
tests_sim_test_sim_SOURCES = \
	tests/sim/admission.c \
	tests/sim/calls.c \
	tests/sim/fiber.c \
	tests/sim/file.c \
	tests/sim/sim.h \
	tests/sim/stream.c \
	tests/sim/test_sim.c
tests_sim_test_sim_LDADD = $(libechod_libs)
tests_sim_test_sim_LDFLAGS = $(AM_LDFLAGS) `for f in $(sim_replaced); do echo -Wl,--wrap=$$f; done`

# Suites of system tests: NAME.test runs the directory NAME with pytest.
system_suites = \
	tests/client.test \
	tests/limits.test \
	tests/persistence.test \
	tests/soak.test \
	tests/system.test \
	tests/systemd.test \
	tests/wire.test

if FUZZING
# libFuzzer (FUZZER_LIBS) brings main(); tests/fuzz/local.mk has the targets.
LDADD = $(libechod_libs) $(FUZZER_LIBS)
else
LDADD = $(libechod_libs) $(CMOCKA_LIBS)
if HAVE_CMOCKA
check_PROGRAMS += $(unit_tests) $(client_tests)
TESTS += $(unit_tests) $(client_tests)
endif
if HAVE_MAKECONTEXT
check_PROGRAMS += tests/sim/test_sim
TESTS += tests/sim/test_sim
endif
TESTS += $(system_suites) tests/manual.test

# Many verified streams, for tests/persistence.
check_PROGRAMS += tests/persistence/streams
tests_persistence_streams_LDADD =
endif

EXTRA_DIST += \
	$(system_suites) \
	pytest.ini \
	tests/README.md \
	tests/client \
	tests/conftest.py \
	tests/hosts.test \
	tests/hosts/host.c \
	tests/hosts/test_hosts.py \
	tests/lib \
	tests/limits \
	tests/list-skipped \
	tests/manual.test \
	tests/mutants.txt \
	tests/persistence \
	tests/random \
	tests/random.test \
	tests/run-mcdc \
	tests/run-mutants \
	tests/run-pytest \
	tests/run-unit \
	tests/soak \
	tests/system \
	tests/systemd \
	tests/unit/atomics.h \
	tests/unit/failing.h \
	tests/wire

LOG_COMPILER = $(SHELL) $(srcdir)/tests/run-unit
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
TEST_EXTENSIONS = .test
TEST_LOG_DRIVER = $(LOG_DRIVER)

AM_TESTS_ENVIRONMENT = \
	ECHOD='$(abs_top_builddir)/echod'; export ECHOD; \
	ECHOC='$(abs_top_builddir)/echoc'; export ECHOC; \
	ECHOD_SRCDIR='$(abs_top_srcdir)'; export ECHOD_SRCDIR; \
	ECHOD_BUILDDIR='$(abs_top_builddir)'; export ECHOD_BUILDDIR; \
	ECHOD_SANITIZERS='$(SANITIZERS)'; export ECHOD_SANITIZERS; \
	ECHOD_DEB='$(ECHOD_DEB)'; export ECHOD_DEB; \
	PYTHON='$(PYTHON)'; export PYTHON; \
	PYTESTFLAGS='$(PYTESTFLAGS)'; export PYTESTFLAGS; \
	LC_ALL=C.UTF-8; export LC_ALL;

PYTESTFLAGS =

# The system tests drive the built programs.
check-am: echod echoc

# Every model on hosts that differ from this one; host.so makes a part of them.
check-hosts: tests/hosts/host.so
	$(MAKE) $(AM_MAKEFLAGS) check TESTS=tests/hosts.test

tests/hosts/host.so: tests/hosts/host.c
	@$(MKDIR_P) $(@D)
	$(AM_V_CCLD)$(CC) $(DEFS) -I. $(AM_CFLAGS) $(CFLAGS) -shared -fPIC -o $@ $<
CLEANFILES += tests/hosts/host.so
.PHONY: check-hosts

# SIM_EVENTS simulated events in each test of tests/sim; SIM_SEED repeats a run.
SIM_EVENTS = 10000000
SIM_SEED =
check-sim: tests/sim/test_sim
	SIM_EVENTS='$(SIM_EVENTS)' SIM_SEED='$(SIM_SEED)' UNIT_TIMEOUT=0 \
		$(MAKE) $(AM_MAKEFLAGS) check TESTS=tests/sim/test_sim
	@cat tests/sim/test_sim.log
.PHONY: check-sim

# Random clients and operators against a reference model, for RANDOM_TIME seconds; RANDOM_SEED repeats the choices.
RANDOM_TIME = 60
RANDOM_SEED =
check-random:
	RANDOM_TIME='$(RANDOM_TIME)' RANDOM_SEED='$(RANDOM_SEED)' $(MAKE) $(AM_MAKEFLAGS) check TESTS=tests/random.test
.PHONY: check-random

# The tests to run after each change.
quick_tests = tests/manual.test tests/system.test
if !FUZZING
quick_tests += tests/fuzz.test
if HAVE_CMOCKA
quick_tests += $(unit_tests) $(client_tests)
endif
endif
check-quick:
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(quick_tests)' PYTESTFLAGS='--models=epoll,io_uring $(PYTESTFLAGS)'
.PHONY: check-quick

# Good and hostile clients for SOAK_TIME seconds in each of SOAK_MODELS, one after the other.
SOAK_TIME = 60
SOAK_MODELS = process,prefork,thread,prethread,select,poll,epoll,io_uring
soak: echod
	$(AM_TESTS_ENVIRONMENT) SOAK_TIME=$(SOAK_TIME) SOAK_MODELS=$(SOAK_MODELS) PYTEST_WORKERS=$(SOAK_PARALLEL) \
		$(SHELL) $(srcdir)/tests/soak.test -rP
SOAK_PARALLEL = 1
.PHONY: soak

# configure, from a directory below this one
configure_below = `case $(srcdir) in /*) echo $(srcdir);; *) echo ../$(srcdir);; esac`/configure

# Lines and branches of the daemon and client that the tests run. A failed test does not hide them; fewer lines than
# COVERAGE_LEAST per cent of what serves connections fails.
COVERAGE_LEAST = 90
if COVERAGE
coverage:
	find . -name '*.gcda' -exec rm -f {} +
	-$(MAKE) $(AM_MAKEFLAGS) check
	@$(MKDIR_P) coverage
	gcovr --root $(top_srcdir) --filter '.*src/' --exclude-throw-branches --print-summary \
		--html-details coverage/index.html --txt coverage/summary.txt --json-summary coverage/summary.json \
		--json coverage/lines.json .
	@cat coverage/summary.txt
	@echo "every line: `pwd`/coverage/index.html"
	@echo "echo, net, conf and models alone:"
	@gcovr --root $(top_srcdir) --filter '.*src/(echo|net|conf|models)/' --exclude-throw-branches --print-summary \
		--fail-under-line $(COVERAGE_LEAST) --add-tracefile coverage/lines.json --txt coverage/rooms.txt
else
coverage:
	@command -v gcovr >/dev/null || { echo "make coverage needs gcovr (Debian: apt install gcovr)" >&2; exit 1; }
	@$(MKDIR_P) coverage-build
	@cd coverage-build && { test -f Makefile || $(configure_below) -q --enable-coverage --enable-debug-faults CFLAGS='-Og -g'; }
	@cd coverage-build && $(MAKE) $(AM_MAKEFLAGS) coverage
endif

# Modified condition/decision coverage of the core, by the unit tests and the stored fuzz inputs: fails below the least
# percentages that tests/run-mcdc names. `make mutants` changes the same files in small ways, in a build with
# sanitizers: tests/run-mutants. "make mutants-report" does so in this build.
MCDC_CC = clang-19
MCDC_LLVM = -19
mcdc:
	@{ $(MCDC_CC) --version && llvm-cov$(MCDC_LLVM) --version; } >/dev/null 2>&1 || \
		{ echo "make mcdc needs clang and llvm 18 or later (Debian: apt install clang-19 llvm-19 libclang-rt-19-dev)" >&2; exit 1; }
	@$(MKDIR_P) mcdc-build
	@cd mcdc-build && { test -f Makefile || $(configure_below) -q --enable-coverage=mcdc CC='$(MCDC_CC)' \
		CFLAGS='-O0 -g'; }
	@cd mcdc-build && $(MAKE) $(AM_MAKEFLAGS) check TESTS= && $(MAKE) $(AM_MAKEFLAGS) mcdc-report
mcdc-report:
	ECHOD_SRCDIR='$(abs_top_srcdir)' $(SHELL) $(srcdir)/tests/run-mcdc $(srcdir) '$(MCDC_LLVM)' $(unit_tests) $(fuzzers)
mutants:
	@$(MKDIR_P) mutants-build
	@cd mutants-build && { test -f Makefile || $(configure_below) -q --enable-sanitizers=address,undefined CFLAGS='-O1 -g'; }
	@cd mutants-build && $(MAKE) $(AM_MAKEFLAGS) check TESTS= && $(MAKE) $(AM_MAKEFLAGS) mutants-report
mutants-report:
	ECHOD_SRCDIR='$(abs_top_srcdir)' $(PYTHON) $(srcdir)/tests/run-mutants $(srcdir) $(MUTANTSFLAGS)
# -n COUNT, 0: all (200); -s SEED; -j JOBS; -k TEXT; files
MUTANTSFLAGS =
.PHONY: mcdc mcdc-report mutants mutants-report

distclean-local: distclean-tests distclean-bench
distclean-tests:
	-rm -rf coverage-build coverage fuzz-build mcdc-build mcdc mutants-build
.PHONY: coverage distclean-tests
