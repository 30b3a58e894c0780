# SPDX-License-Identifier: ISC
# Benchmarks; nothing here is installed, and "make check" runs none of it. They need python3, and gnuplot for plots.
#
#   make bench                    all models, and the other servers that are installed; less than half an hour
#   make bench BENCH_SHORT=1      the models alone, in short rounds and with fewer points; under five minutes
#   make anatomy                  system calls, context switches, page faults and wake-ups, counted; two minutes
#   make bench-live               one load, while the daemon is switched through all models; under a minute, part of make bench
#   make bench-curves             cost over connections, idle connections, sizes and load; memory, fairness, balance
#   make bench-goals              io_uring and epoll against the yardstick; some minutes
#   make bench-workers            event loops with one and two workers, and their balance; part of make bench
#   make bench-datagrams          datagrams per CPU second against two plain loops; some minutes
#   make bench-attacks            round-trip times of a good client beside attacks, and the counters; a minute
#   make bench BENCH_FLAGS='--only epoll,io_uring --scenarios rr50,stream8 --rounds 7'
#   make bench-goals BENCH_FLAGS='--congestion reno'      in a new network namespace; needs root
#   make bench-goals BENCH_FLAGS='--other "theirs=/path/to/server --port {port}"'
#
# The results go to bench/: index.html, its plots live.svg and overview.svg, and a JSON file with all rounds of each program.

bench_programs = tests/bench/load_udp tests/bench/plain_epoll tests/bench/plain_udp
EXTRA_PROGRAMS += $(bench_programs)
CLEANFILES += $(bench_programs)
tests_bench_load_udp_LDADD =
tests_bench_plain_epoll_LDADD =
tests_bench_plain_udp_LDADD =

EXTRA_DIST += \
	tests/bench/anatomy.py \
	tests/bench/attacks.py \
	tests/bench/bench.py \
	tests/bench/command.py \
	tests/bench/cost.py \
	tests/bench/curves.py \
	tests/bench/datagrams.py \
	tests/bench/goals.py \
	tests/bench/lesson.py \
	tests/bench/live.py \
	tests/bench/live.svg \
	tests/bench/load.py \
	tests/bench/overview.svg \
	tests/bench/page.py \
	tests/bench/servers.py \
	tests/bench/stats.py \
	tests/bench/table.py \
	tests/bench/where.py \
	tests/bench/workers.py

BENCH_SHORT =
BENCH_FLAGS =
ANATOMY_FLAGS =
CURVES_FLAGS =
PYTHON3 = python3
run_bench = \
	$(PYTHON3) -B $(srcdir)/tests/bench/bench.py --echod '$(abs_builddir)/echod' --echoc '$(abs_builddir)/echoc' \
	--yardstick '$(abs_builddir)/tests/bench/plain_epoll' --output bench `test -z '$(BENCH_SHORT)' || echo --short`
run_workers = \
	$(PYTHON3) -B $(srcdir)/tests/bench/workers.py --echod '$(abs_builddir)/echod' --echoc '$(abs_builddir)/echoc' \
	--output bench `test -z '$(BENCH_SHORT)' || echo --short`

run_echod = --echod '$(abs_builddir)/echod' --echoc '$(abs_builddir)/echoc' --output bench \
	`test -z '$(BENCH_SHORT)' || echo --short`
run_anatomy = $(PYTHON3) -B $(srcdir)/tests/bench/anatomy.py $(run_echod)
run_curves = $(PYTHON3) -B $(srcdir)/tests/bench/curves.py $(run_echod)
run_live = $(PYTHON3) -B $(srcdir)/tests/bench/live.py $(run_echod)

bench: echod echoc tests/bench/plain_epoll
	@$(run_bench) $(BENCH_FLAGS)
	@$(run_workers)
	@test -n '$(BENCH_FLAGS)' || { status=0; \
	$(run_anatomy) || test $$? -eq 77 || status=1; \
	$(run_curves) || status=1; \
	$(run_live) || status=1; \
	$(run_bench) --redraw && exit $$status; }

bench-workers: echod echoc
	@$(run_workers) $(BENCH_FLAGS)

anatomy: echod echoc
	@$(run_anatomy) $(ANATOMY_FLAGS)

bench-live: echod echoc
	@$(run_live)

bench-curves: echod echoc
	@$(run_curves) $(CURVES_FLAGS)

bench-goals: echod echoc tests/bench/plain_epoll
	@$(run_bench) --goals $(BENCH_FLAGS)

bench-datagrams: echod tests/bench/load_udp tests/bench/plain_udp
	@$(PYTHON3) -B $(srcdir)/tests/bench/datagrams.py --echod '$(abs_builddir)/echod' \
	--yardstick '$(abs_builddir)/tests/bench/plain_udp' --load '$(abs_builddir)/tests/bench/load_udp' --output bench $(BENCH_FLAGS)

bench-attacks: echod echoc
	@$(PYTHON3) -B $(srcdir)/tests/bench/attacks.py --echod '$(abs_builddir)/echod' --echoc '$(abs_builddir)/echoc' $(BENCH_FLAGS)

distclean-bench:
	-rm -rf bench
.PHONY: anatomy bench bench-attacks bench-curves bench-datagrams bench-goals bench-live bench-workers distclean-bench
