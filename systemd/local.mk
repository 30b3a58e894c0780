# SPDX-License-Identifier: ISC
# Units, the user they run as, and the message catalog. systemd reads all three below /usr/lib and
# /usr/local/lib alike, so they follow the prefix.

# Two variants of one text, with some lines of their own.
systemd_services = \
	systemd/echod.service \
	systemd/echod-activated.service
systemd_templates = systemd/echod@.service

# An instance NAME of the service: its own file, its own directory below /run.
systemd/echod@.service: systemd/echod.service
	$(AM_V_GEN)$(SED) -e 's|^Description=.*|Description=Echo service (RFC 862), instance %i|' \
		-e '/^Exec/s|/echod\.conf$$|/echod/%i.conf|' \
		-e 's|^RuntimeDirectory=echod$$|&-%i|' \
		-e 's|/run/echod\>|/run/echod-%i|' $< >$@.tmp && mv -f $@.tmp $@

$(systemd_services): systemd/echod.service.in FORCE
	$(AM_V_at)$(substitute_to)

dist_noinst_DATA = systemd/echod.socket
noinst_DATA = $(systemd_services) $(systemd_templates)
if HAVE_SYSTEMDSYSTEMUNITDIR
nodist_systemdsystemunit_DATA = \
	$(systemd_services) \
	$(systemd_templates) \
	systemd/echod.socket
endif

sysusersdir = $(prefix)/lib/sysusers.d
dist_sysusers_DATA = systemd/sysusers.d/echod.conf

catalogdir = $(prefix)/lib/systemd/catalog
dist_catalog_DATA = systemd/echod.catalog

# Not a unit of its own, and not for every version of systemd: for the operator to copy.
examplesdir = $(docdir)/examples
systemd_examples = \
	systemd/keep-over-stop.conf \
	systemd/no-io-uring.conf \
	systemd/notify-reload.conf \
	systemd/systemd-257.conf
nodist_examples_DATA = $(systemd_examples)

systemd/keep-over-stop.conf: systemd/keep-over-stop.conf.in FORCE
	$(AM_V_at)$(substitute_to)

systemd/no-io-uring.conf: systemd/no-io-uring.conf.in FORCE
	$(AM_V_at)$(substitute_to)

systemd/notify-reload.conf: systemd/notify-reload.conf.in FORCE
	$(AM_V_at)$(substitute_to)

systemd/systemd-257.conf: systemd/systemd-257.conf.in FORCE
	$(AM_V_at)$(substitute_to)

EXTRA_DIST += \
	systemd/echod.service.in \
	systemd/keep-over-stop.conf.in \
	systemd/no-io-uring.conf.in \
	systemd/notify-reload.conf.in \
	systemd/systemd-257.conf.in

CLEANFILES += \
	$(systemd_services) \
	$(systemd_templates) \
	$(systemd_examples)

# On the running system itself systemd is told of both, so that the service can be started at once;
# a package does this when it is installed. What is uninstalled runs no longer and is not enabled any
# more. The user stays when the program goes: its number could be on files.
install_data_hooks += install-systemd
uninstall_hooks += uninstall-systemd

systemd_here = test -z "$(DESTDIR)" && test "`id -u`" = 0 && case "$(prefix)" in /usr|/usr/local) ;; *) false;; esac

install-systemd:
	@if $(systemd_here); then \
		for command in "systemd-sysusers $(sysusersdir)/echod.conf" "journalctl --update-catalog"; do \
			echo " $$command"; $$command || echo "that failed; it can be run later"; \
		done; \
	fi

uninstall-systemd:
	@if $(systemd_here); then \
		for unit in echod.service echod-activated.service echod.socket \
				`systemctl list-units --all --plain --no-legend 'echod@*.service' | cut -d ' ' -f 1`; do \
			systemctl stop $$unit; \
			systemctl disable $$unit; \
		done 2>/dev/null; \
		systemctl daemon-reload || :; \
		journalctl --update-catalog || :; \
	fi
