# SPDX-License-Identifier: ISC
# Tests in other releases of Debian and for other architectures, in chroots that are built once, in distro/ of the build
# directory (needs root; see check-distro).
#
#   make check-distro DISTRO=trixie
#   make check-distro DISTRO=bookworm-i386 PARTS="unit system"
#   make check-distro DISTRO=testing PARTS=systemd PYTESTFLAGS="-k hardening"

EXTRA_DIST += \
	tests/distro/check-distro \
	tests/distro/containerfile \
	tests/distro/parts

DISTRO = trixie
PARTS =

check-distro: dist
	PYTESTFLAGS='$(PYTESTFLAGS)' $(srcdir)/tests/distro/check-distro $(DISTRO) $(distdir).tar.xz distro $(PARTS)

distclean-local: distclean-distro
distclean-distro:
	-rm -rf distro
.PHONY: check-distro distclean-distro
