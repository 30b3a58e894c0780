# SPDX-License-Identifier: ISC
# echoc: uses base/ and net/ of libechod.a and nothing else of the daemon.

bin_PROGRAMS += echoc

# Without main(), so that the unit tests of its pure parts can be linked with it.
noinst_LIBRARIES += libechoc.a

libechoc_a_SOURCES = \
	src/client/error.c \
	src/client/error.h \
	src/client/histogram.c \
	src/client/histogram.h \
	src/client/interrupt.c \
	src/client/interrupt.h \
	src/client/json.c \
	src/client/json.h \
	src/client/nsec.h \
	src/client/numbers.c \
	src/client/numbers.h \
	src/client/options.c \
	src/client/options.h \
	src/client/outfile.c \
	src/client/outfile.h \
	src/client/output.c \
	src/client/output.h \
	src/client/pattern.c \
	src/client/pattern.h \
	src/client/target.c \
	src/client/target.h \
	src/client/load/conn.c \
	src/client/load/conn.h \
	src/client/load/connect.c \
	src/client/load/connect.h \
	src/client/load/engine_epoll.c \
	src/client/load/engine_udp.c \
	src/client/load/epoll_base.c \
	src/client/load/epoll_base.h \
	src/client/load/load.c \
	src/client/load/load.h \
	src/client/load/plot.c \
	src/client/load/plot.h \
	src/client/load/report.c \
	src/client/load/report.h \
	src/client/load/worker.c \
	src/client/load/worker.h \
	src/client/ping/metrics.c \
	src/client/ping/metrics.h \
	src/client/ping/packet.c \
	src/client/ping/packet.h \
	src/client/ping/ping.c \
	src/client/ping/ping.h \
	src/client/ping/probes.c \
	src/client/ping/probes.h \
	src/client/ping/report.c \
	src/client/ping/report.h \
	src/client/ping/session.h \
	src/client/talk/editor.h \
	src/client/talk/exchange.c \
	src/client/talk/exchange.h \
	src/client/talk/filter.c \
	src/client/talk/filter.h \
	src/client/talk/filter_datagram.c \
	src/client/talk/progress.c \
	src/client/talk/progress.h \
	src/client/talk/talk.c \
	src/client/talk/talk.h

if HAVE_LIBURING
libechoc_a_SOURCES += src/client/load/engine_uring.c
else
libechoc_a_SOURCES += src/client/load/engine_uring_stub.c
endif
EXTRA_DIST += src/client/load/engine_uring.c src/client/load/engine_uring_stub.c

if HAVE_LIBEDIT
libechoc_a_SOURCES += src/client/talk/editor.c
else
libechoc_a_SOURCES += src/client/talk/editor_plain.c
endif
EXTRA_DIST += src/client/talk/editor.c src/client/talk/editor_plain.c

echoc_SOURCES = src/client/main.c
echoc_LDADD = libechoc.a libechod.a $(LIBURING_LIBS) $(LIBEDIT_LIBS) -lm
