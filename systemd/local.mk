# Units and the message catalog. systemd reads both below /usr/lib and /usr/local/lib alike, so they
# follow the prefix. There is no user to make: the services run under a dynamic one.

# Two variants of one text, with some lines of their own.
systemd_services = \
	systemd/echod.service \
	systemd/echod-activated.service

$(systemd_services): systemd/echod.service.in FORCE
	$(AM_V_at)$(substitute_to)

dist_noinst_DATA = systemd/echod.socket
noinst_DATA = $(systemd_services)
if HAVE_SYSTEMDSYSTEMUNITDIR
nodist_systemdsystemunit_DATA = \
	$(systemd_services) \
	systemd/echod.socket
endif

catalogdir = $(prefix)/lib/systemd/catalog
dist_catalog_DATA = systemd/echod.catalog

# Not a unit of its own, and not for every version of systemd: for the operator to copy.
examplesdir = $(docdir)/examples
nodist_examples_DATA = systemd/notify-reload.conf

systemd/notify-reload.conf: systemd/notify-reload.conf.in FORCE
	$(AM_V_at)$(substitute_to)

EXTRA_DIST += \
	systemd/echod.service.in \
	systemd/notify-reload.conf.in

CLEANFILES += \
	$(systemd_services) \
	systemd/notify-reload.conf
