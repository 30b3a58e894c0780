# echoc: uses base/ and net/ of libechod.a and nothing else of the daemon.

bin_PROGRAMS += echoc

echoc_SOURCES = \
	src/client/filter.c \
	src/client/filter.h \
	src/client/flow.c \
	src/client/flow.h \
	src/client/histogram.c \
	src/client/histogram.h \
	src/client/interrupt.c \
	src/client/interrupt.h \
	src/client/main.c \
	src/client/numbers.c \
	src/client/numbers.h \
	src/client/options.c \
	src/client/options.h \
	src/client/pattern.c \
	src/client/pattern.h \
	src/client/progress.c \
	src/client/progress.h \
	src/client/talk.h \
	src/client/target.c \
	src/client/target.h \
	src/client/ticks.h

echoc_LDADD = libechod.a $(SYSTEMD_LIBS) $(LIBURING_LIBS) $(LIBEDIT_LIBS) -lm
