# SPDX-License-Identifier: ISC
# Manual pages

dist_man_MANS += \
	man/echoc.1 \
	man/echod-models.7 \
	man/echod.8 \
	man/echod.conf.5
