# Units (made from .in), system users and the message catalog. systemd reads all three below
# /usr/lib and /usr/local/lib alike, so they follow the prefix.

systemd_units =
sysusersdir = $(prefix)/lib/sysusers.d
catalogdir = $(prefix)/lib/systemd/catalog
dist_sysusers_DATA =
dist_catalog_DATA =

systemd_units += systemd/echod.service

EXTRA_DIST += \
	systemd/echod.service.in

systemd/echod.service: systemd/echod.service.in FORCE
	$(AM_V_at)$(substitute_to)

noinst_DATA = $(systemd_units)
if HAVE_SYSTEMDSYSTEMUNITDIR
nodist_systemdsystemunit_DATA = $(systemd_units)
endif
CLEANFILES += $(systemd_units)
