# SPDX-License-Identifier: ISC
# echod: everything but main() is in libechod.a, so that the unit tests link the same objects.

noinst_LIBRARIES += libechod.a

libechod_a_SOURCES = \
	src/base/clock.c \
	src/base/clock.h \
	src/base/compat.h \
	src/base/decimal.c \
	src/base/decimal.h \
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
	src/base/notify.c \
	src/base/notify.h \
	src/base/pool.c \
	src/base/plural.h \
	src/base/pool.h \
	src/base/probe.h \
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
	src/base/suggest.c \
	src/base/suggest.h \
	src/base/timeout.c \
	src/base/timeout.h \
	src/net/addr.c \
	src/net/addr.h \
	src/net/admission.c \
	src/net/admission.h \
	src/net/listener.c \
	src/net/listener.h \
	src/net/cidr.c \
	src/net/cidr.h \
	src/net/peer.c \
	src/net/proxy.c \
	src/net/peer.h \
	src/net/proxy.h \
	src/net/sockopt.c \
	src/net/sockopt.h \
	src/conf/conf.c \
	src/conf/conf.h \
	src/conf/diag.c \
	src/conf/diag.h \
	src/conf/keys.h \
	src/conf/listen.c \
	src/conf/diag.h \
	src/conf/options.c \
	src/conf/options.h \
	src/conf/reader.c \
	src/conf/reader.h \
	src/conf/schema.c \
	src/conf/schema.h \
	src/conf/syntax.c \
	src/conf/syntax.h \
	src/conf/types.h \
	src/conf/value.c \
	src/conf/value.h \
	src/echo/conn.c \
	src/echo/conn.h \
	src/echo/dgram.c \
	src/echo/dgram.h \
	src/echo/udp_ratelimit.c \
	src/echo/udp_ratelimit.h \
	src/echo/scoreboard.c \
	src/echo/scoreboard.h \
	src/echo/state.c \
	src/echo/state.h \
	src/echo/stats.c \
	src/echo/stats.h \
	src/models/accept/accept.c \
	src/models/accept/accept.h \
	src/models/accept/accept_token.c \
	src/models/accept/accept_token.h \
	src/models/accept/accept_watch.c \
	src/models/accept/accept_watch.h \
	src/models/blocking/acceptor.c \
	src/models/blocking/acceptor.h \
	src/models/event/body.c \
	src/models/event/body.h \
	src/models/datagram.c \
	src/models/datagram.h \
	src/models/handover/drain.c \
	src/models/handover/drain.h \
	src/models/fault.h \
	src/models/handover/handover.c \
	src/models/handover/handover.h \
	src/models/event/loop.c \
	src/models/model.c \
	src/models/model.h \
	src/models/model_table.h \
	src/models/handover/pack.c \
	src/models/handover/pack.h \
	src/models/event/poller_epoll.c \
	src/models/event/poller_poll.c \
	src/models/event/poller_select.c \
	src/models/blocking/serial.c \
	src/models/blocking/serve.c \
	src/models/blocking/serve.h \
	src/models/session.c \
	src/models/session.h \
	src/models/blocking/spawn.c \
	src/models/session_io.c \
	src/models/session_io.h \
	src/models/poller.h \
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
	src/daemon/reload.c \
	src/daemon/reload.h \
	src/daemon/report.c \
	src/daemon/report.h \
	src/daemon/retire.c \
	src/daemon/retire.h \
	src/daemon/signals.c \
	src/daemon/signals.h \
	src/daemon/sockets.c \
	src/daemon/sockets.h \
	src/daemon/start.c \
	src/daemon/start.h \
	src/daemon/stop.c \
	src/daemon/stop.h \
	src/daemon/fdstore.c \
	src/daemon/fdstore.h \
	src/daemon/supervisor.c \
	src/daemon/supervisor.h \
	src/daemon/supervisor_state.c \
	src/daemon/supervisor_state.h

if HAVE_LIBURING
libechod_a_SOURCES += \
	src/models/uring/uring.c \
	src/models/uring/uring.h \
	src/models/uring/uring_buffers.c \
	src/models/uring/uring_buffers.h \
	src/models/uring/uring_accept.c \
	src/models/uring/uring_session.c \
	src/models/uring/uring_rxq.c \
	src/models/uring/uring_writable.c \
	src/models/uring/uring_probe.c \
	src/models/uring/uring_ring.c \
	src/models/uring/uring_ring.h
else
libechod_a_SOURCES += src/models/uring/uring_stub.c
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
