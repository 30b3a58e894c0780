# SPDX-License-Identifier: ISC
# echod.conf belongs to the operator once it is installed: an existing one is never replaced,
# and only one that nobody has edited is removed by "make uninstall".

EXTRA_DIST += etc/echod.conf

install_data_hooks = install-conf install-man-paths
uninstall_hooks = uninstall-conf

install-conf:
	@$(MKDIR_P) "$(DESTDIR)$(sysconfdir)"
	@if test -e "$(DESTDIR)$(sysconfdir)/echod.conf"; then \
		cmp -s $(srcdir)/etc/echod.conf "$(DESTDIR)$(sysconfdir)/echod.conf" || \
		echo "keeping the existing $(DESTDIR)$(sysconfdir)/echod.conf; the one of this version is $(srcdir)/etc/echod.conf"; \
	else \
		echo " $(INSTALL_DATA) $(srcdir)/etc/echod.conf $(DESTDIR)$(sysconfdir)/echod.conf"; \
		$(INSTALL_DATA) $(srcdir)/etc/echod.conf "$(DESTDIR)$(sysconfdir)/echod.conf"; \
	fi

# The manual speaks of the place where the file is.
install-man-paths:
	@for page in "$(DESTDIR)$(man5dir)/echod.conf.5" "$(DESTDIR)$(man8dir)/echod.8"; do \
		$(SED) 's|/etc/echod\.conf|$(sysconfdir)/echod.conf|g' "$$page" >"$$page.tmp" && \
		cat "$$page.tmp" >"$$page" && rm -f "$$page.tmp" || exit 1; \
	done

uninstall-conf:
	@if cmp -s $(srcdir)/etc/echod.conf "$(DESTDIR)$(sysconfdir)/echod.conf"; then \
		rm -f "$(DESTDIR)$(sysconfdir)/echod.conf"; \
	elif test -e "$(DESTDIR)$(sysconfdir)/echod.conf"; then \
		echo "keeping the edited $(DESTDIR)$(sysconfdir)/echod.conf"; \
	fi
	-@rmdir "$(DESTDIR)$(docdir)/examples" "$(DESTDIR)$(docdir)" 2>/dev/null || :

# Shell completion, where bash and zsh look below each prefix.
bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = \
	etc/completions/bash/echoc \
	etc/completions/bash/echod

zshcompletiondir = $(datadir)/zsh/site-functions
dist_zshcompletion_DATA = \
	etc/completions/zsh/_echoc \
	etc/completions/zsh/_echod
