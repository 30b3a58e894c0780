# echoc: uses base/ and net/ of libechod.a and nothing else of the daemon.

bin_PROGRAMS += echoc

# Without main(), so that the unit tests of its pure parts can be linked with it.
noinst_LIBRARIES += libechoc.a

libechoc_a_SOURCES = \
	src/client/editor.h \
	src/client/exchange.c \
	src/client/exchange.h \
	src/client/filter.c \
	src/client/filter.h \
	src/client/filter_datagram.c \
	src/client/flow.c \
	src/client/flow.h \
	src/client/histogram.c \
	src/client/histogram.h \
	src/client/interrupt.c \
	src/client/interrupt.h \
	src/client/json.c \
	src/client/json.h \
	src/client/load.c \
	src/client/load.h \
	src/client/load_epoll.c \
	src/client/load_udp.c \
	src/client/numbers.c \
	src/client/numbers.h \
	src/client/opener.c \
	src/client/opener.h \
	src/client/options.c \
	src/client/options.h \
	src/client/pattern.c \
	src/client/pattern.h \
	src/client/ping.c \
	src/client/ping.h \
	src/client/plot.c \
	src/client/plot.h \
	src/client/probes.c \
	src/client/probes.h \
	src/client/progress.c \
	src/client/progress.h \
	src/client/report.c \
	src/client/report.h \
	src/client/talk.c \
	src/client/talk.h \
	src/client/target.c \
	src/client/target.h \
	src/client/ticks.h \
	src/client/worker.c \
	src/client/worker.h

if HAVE_LIBURING
libechoc_a_SOURCES += src/client/load_uring.c
else
libechoc_a_SOURCES += src/client/load_uring_stub.c
endif
EXTRA_DIST += src/client/load_uring.c src/client/load_uring_stub.c

if HAVE_LIBEDIT
libechoc_a_SOURCES += src/client/editor.c
else
libechoc_a_SOURCES += src/client/editor_plain.c
endif
EXTRA_DIST += src/client/editor.c src/client/editor_plain.c

echoc_SOURCES = src/client/main.c
echoc_LDADD = libechoc.a libechod.a $(LIBURING_LIBS) $(LIBEDIT_LIBS) -lm
