# echod: everything but main() is in libechod.a, so that the unit tests link the same objects.

noinst_LIBRARIES += libechod.a

libechod_a_SOURCES = \
	src/base/clock.c \
	src/base/clock.h \
	src/base/compat.h \
	src/base/escape.c \
	src/base/escape.h \
	src/base/event.h \
	src/base/fdpass.c \
	src/base/fdpass.h \
	src/base/idle.c \
	src/base/idle.h \
	src/base/list.h \
	src/base/log.c \
	src/base/log.h \
	src/base/log_budget.c \
	src/base/log_budget.h \
	src/base/memfile.c \
	src/base/memfile.h \
	src/base/names.c \
	src/base/names.h \
	src/base/notify.c \
	src/base/notify.h \
	src/base/pool.c \
	src/base/pool.h \
	src/base/processors.c \
	src/base/processors.h \
	src/base/quote.c \
	src/base/quote.h \
	src/base/ratelimit.c \
	src/base/ratelimit.h \
	src/base/sandbox.c \
	src/base/sandbox.h \
	src/base/siphash.c \
	src/base/siphash.h \
	src/base/timeout.c \
	src/base/timeout.h \
	src/net/addr.c \
	src/net/addr.h \
	src/net/admission.c \
	src/net/admission.h \
	src/net/listener.c \
	src/net/listener.h \
	src/net/network.c \
	src/net/network.h \
	src/net/peer.c \
	src/net/peer.h \
	src/net/sockopt.c \
	src/net/sockopt.h \
	src/conf/conf.c \
	src/conf/conf.h \
	src/conf/dump.c \
	src/conf/errors.c \
	src/conf/errors.h \
	src/conf/mistakes.c \
	src/conf/mistakes.h \
	src/conf/options.c \
	src/conf/options.h \
	src/conf/scan.c \
	src/conf/scan.h \
	src/conf/schema.c \
	src/conf/schema.h \
	src/echo/conn.c \
	src/echo/conn.h \
	src/echo/dgram.c \
	src/echo/dgram.h \
	src/echo/meter.c \
	src/echo/meter.h \
	src/echo/scoreboard.c \
	src/echo/scoreboard.h \
	src/echo/state.c \
	src/echo/state.h \
	src/echo/stats.c \
	src/echo/stats.h \
	src/models/accept.c \
	src/models/accept.h \
	src/models/accept_token.c \
	src/models/accept_token.h \
	src/models/accept_watch.c \
	src/models/accept_watch.h \
	src/models/acceptor.c \
	src/models/acceptor.h \
	src/models/body.c \
	src/models/body.h \
	src/models/datagram.c \
	src/models/datagram.h \
	src/models/drain.c \
	src/models/drain.h \
	src/models/fault.h \
	src/models/handover.c \
	src/models/handover.h \
	src/models/loop.c \
	src/models/model.c \
	src/models/model.h \
	src/models/pack.c \
	src/models/pack.h \
	src/models/ready_epoll.c \
	src/models/ready_poll.c \
	src/models/ready_select.c \
	src/models/serial.c \
	src/models/serve.c \
	src/models/serve.h \
	src/models/session.c \
	src/models/session.h \
	src/models/spawn.c \
	src/models/turn.c \
	src/models/turn.h \
	src/models/watch.h \
	src/models/worker.c \
	src/models/worker.h \
	src/daemon/crew.c \
	src/daemon/crew.h \
	src/daemon/daemonize.c \
	src/daemon/daemonize.h \
	src/daemon/pidfile.c \
	src/daemon/pidfile.h \
	src/daemon/preserve.c \
	src/daemon/preserve.h \
	src/daemon/privileges.c \
	src/daemon/privileges.h \
	src/daemon/report.c \
	src/daemon/report.h \
	src/daemon/signals.c \
	src/daemon/signals.h \
	src/daemon/sockets.c \
	src/daemon/sockets.h \
	src/daemon/store.c \
	src/daemon/store.h \
	src/daemon/supervisor.c \
	src/daemon/supervisor.h

if HAVE_LIBURING
libechod_a_SOURCES += \
	src/models/uring.c \
	src/models/uring.h \
	src/models/uring_buffers.c \
	src/models/uring_buffers.h \
	src/models/uring_accept.c \
	src/models/uring_session.c \
	src/models/uring_rxq.c \
	src/models/uring_probe.c \
	src/models/uring_ring.c \
	src/models/uring_ring.h
else
libechod_a_SOURCES += src/models/uring_stub.c
endif

if DEBUG_FAULTS
libechod_a_SOURCES += src/models/fault_hostile.c
endif

if COVERAGE
libechod_a_SOURCES += tests/coverage.c
endif

libechod_libs = libechod.a $(CONFUSE_LIBS) $(SYSTEMD_LIBS) $(LIBURING_LIBS) $(LIBSECCOMP_LIBS)

sbin_PROGRAMS += echod
echod_SOURCES = src/main.c
echod_LDADD = $(libechod_libs)
