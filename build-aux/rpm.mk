# SPDX-License-Identifier: ISC
# The RPM package, from the release tarball. On Debian, whose packages rpm does not see, RPMFLAGS=--nodeps is needed.
#
#   make rpm RPMFLAGS=--nodeps      rpm/RPMS/ARCHITECTURE/echod-VERSION-1.ARCHITECTURE.rpm

EXTRA_DIST += build-aux/rpm/echod.spec

RPMFLAGS =

rpm: dist
	rm -rf rpm
	$(MKDIR_P) rpm/SOURCES
	cp -p $(distdir).tar.xz rpm/SOURCES/
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS rpmbuild -bb $(RPMFLAGS) --define "_topdir $(abs_builddir)/rpm" \
		$(srcdir)/build-aux/rpm/echod.spec

distclean-local: distclean-rpm
distclean-rpm:
	-rm -rf rpm
.PHONY: rpm distclean-rpm
