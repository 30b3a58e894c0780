# SPDX-License-Identifier: ISC
# The Debian package, built as README.source there says: from the release tarball and nothing else.
#
#   make deb           deb/echod_VERSION-1_ARCHITECTURE.deb
#   make check-deb     the same, lintian, and its whole life in a booted systemd (as root)

EXTRA_DIST += \
	build-aux/debian/README.source \
	build-aux/debian/changelog \
	build-aux/debian/control \
	build-aux/debian/copyright \
	build-aux/debian/echod.lintian-overrides \
	build-aux/debian/echod.postinst \
	build-aux/debian/echod.postrm \
	build-aux/debian/echod.prerm \
	build-aux/debian/rules \
	build-aux/debian/source/format \
	build-aux/debian/watch

deb: dist
	rm -rf deb
	$(MKDIR_P) deb
	cp -p $(distdir).tar.xz deb/$(PACKAGE)_$(PACKAGE_VERSION).orig.tar.xz
	cd deb && tar -xf $(PACKAGE)_$(PACKAGE_VERSION).orig.tar.xz && \
		cd $(distdir) && cp -R build-aux/debian debian && \
		env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS dpkg-buildpackage -us -uc

check-deb: deb
	cd deb && lintian --allow-root --fail-on error,warning --info --display-info --tag-display-limit 0 \
		$(PACKAGE)_$(PACKAGE_VERSION)-*.changes
	$(MAKE) $(AM_MAKEFLAGS) check TESTS=tests/systemd.test PYTESTFLAGS="-k test_package" \
		ECHOD_DEB="`ls $(abs_builddir)/deb/$(PACKAGE)_$(PACKAGE_VERSION)-*.deb`"

distclean-local: distclean-deb
distclean-deb:
	-rm -rf deb
.PHONY: deb check-deb distclean-deb
