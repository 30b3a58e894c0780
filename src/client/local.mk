# echoc: uses base/ and net/ of libechod.a and nothing else of the daemon.

bin_PROGRAMS += echoc

echoc_SOURCES = \
	src/client/main.c

echoc_LDADD = libechod.a $(SYSTEMD_LIBS) $(LIBURING_LIBS) $(LIBEDIT_LIBS) -lm
