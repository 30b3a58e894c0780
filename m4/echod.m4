dnl SPDX-License-Identifier: ISC
# echod.m4 - the checks that configure.ac repeats

# ECHOD_COMPILER_FLAGS(VARIABLE, FLAGS)
# Append each of FLAGS that the compiler takes without a word to VARIABLE, one by one.
# -Werror is what makes clang refuse a warning option it does not know.
AC_DEFUN([ECHOD_COMPILER_FLAGS], [
  AC_LANG_ASSERT([C])
  echod_save_cflags=$CFLAGS
  for echod_flag in $2; do
    AS_VAR_PUSHDEF([cache], [echod_cv_cflag_$echod_flag])
    AC_CACHE_CHECK([whether $CC accepts $echod_flag], [cache], [
      CFLAGS="$echod_save_cflags -Werror $echod_flag"
      AC_COMPILE_IFELSE([AC_LANG_SOURCE([[int main(void) { return 0; }]])],
        [AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
    ])
    AS_VAR_IF([cache], [yes], [AS_VAR_APPEND([$1], [" $echod_flag"])])
    AS_VAR_POPDEF([cache])
  done
  CFLAGS=$echod_save_cflags
])

# ECHOD_LINKER_FLAGS(VARIABLE, FLAGS)
# The same for the linker.
AC_DEFUN([ECHOD_LINKER_FLAGS], [
  AC_LANG_ASSERT([C])
  echod_save_ldflags=$LDFLAGS
  echod_save_cflags=$CFLAGS
  for echod_flag in $2; do
    AS_VAR_PUSHDEF([cache], [echod_cv_ldflag_$echod_flag])
    AC_CACHE_CHECK([whether the linker accepts $echod_flag], [cache], [
      CFLAGS="$echod_save_cflags -fPIE"
      LDFLAGS="$echod_save_ldflags -Werror $echod_flag"
      AC_LINK_IFELSE([AC_LANG_SOURCE([[int main(void) { return 0; }]])],
        [AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
    ])
    AS_VAR_IF([cache], [yes], [AS_VAR_APPEND([$1], [" $echod_flag"])])
    AS_VAR_POPDEF([cache])
  done
  LDFLAGS=$echod_save_ldflags
  CFLAGS=$echod_save_cflags
])

# ECHOD_OPTIONAL_LIBRARY(NAME, PACKAGE, CONDITION, HELP, DEBIAN-PACKAGE)
# --with-NAME for a library that is used where pkg-config finds "PACKAGE CONDITION" (auto, the
# default), demanded (yes) or left out (no). Sets with_NAME to yes or no, NAME_version, and the
# NAME_CFLAGS and NAME_LIBS (in capitals) of PKG_CHECK_MODULES.
AC_DEFUN([ECHOD_OPTIONAL_LIBRARY], [
  AC_ARG_WITH([$1], [AS_HELP_STRING([--with-$1], [$4 @<:@auto: where $2 $3 is found@:>@])],
    [AS_CASE([$withval], [yes|no|auto], [], [AC_MSG_ERROR([--with-$1 takes yes, no or auto, not "$withval"])])],
    [with_$1=auto])
  $1_version= $1_why=
  AS_IF([test "x$with_$1" != xno], [
    PKG_CHECK_MODULES(m4_toupper([$1]), [$2 $3], [
      with_$1=yes
      $1_version=`$PKG_CONFIG --modversion $2`
    ], [
      $1_version=`$PKG_CONFIG --modversion $2 2>/dev/null`
      AS_IF([test -n "$$1_version"], [$1_why=" (version $$1_version is too old, it must be $3)"], [$1_why=" (not found)"])
      AS_IF([test "x$with_$1" = xyes],
        [AC_MSG_ERROR([--with-$1 needs $2 $3$$1_why (Debian: apt install $5)])])
      with_$1=no
    ])
  ])
])

# ECHOD_LIBC(MAJOR, MINOR)
# Demand that version of glibc. Another libc is let through, since only its functions tell.
AC_DEFUN([ECHOD_LIBC], [
  AC_MSG_CHECKING([for glibc $1.$2 or newer])
  AC_PREPROC_IFELSE([AC_LANG_SOURCE([[
    #include <features.h>
    #ifdef __GLIBC__
    # if !__GLIBC_PREREQ($1, $2)
    #  error "too old"
    # endif
    #endif
  ]])], [AC_MSG_RESULT([yes, or another libc])], [
    AC_MSG_RESULT([no])
    AC_MSG_ERROR([glibc $1.$2 or newer is needed, with its headers (Debian: apt install libc6-dev; Debian 11 is the oldest release that has it)])
  ])
])

# ECHOD_REQUIRED_LIBRARY(NAME, PACKAGE, CONDITION, DEBIAN-PACKAGE)
AC_DEFUN([ECHOD_REQUIRED_LIBRARY], [
  PKG_CHECK_MODULES(m4_toupper([$1]), [$2 $3],
    [$1_version=`$PKG_CONFIG --modversion $2`],
    [
      $1_version=`$PKG_CONFIG --modversion $2 2>/dev/null`
      AS_IF([test -n "$$1_version"], [$1_why="version $$1_version was found"], [$1_why="pkg-config does not find it"])
      AC_MSG_ERROR([$2 $3 is needed, but $$1_why (Debian: apt install $4)])
    ])
])

# ECHOD_PYTHON_PYTEST
# PYTHON becomes a python3 that can import pytest, or ":" where there is none.
AC_DEFUN([ECHOD_PYTHON_PYTEST], [
  AC_ARG_VAR([PYTHON], [a python3 that has pytest, for the system tests])
  AC_CACHE_CHECK([for a python3 with pytest], [echod_cv_python_pytest], [
    echod_cv_python_pytest=no
    for echod_python in $PYTHON `command -v python3` /usr/bin/python3 /usr/local/bin/python3; do
      AS_IF(["$echod_python" -c 'import pytest' >/dev/null 2>&1],
        [echod_cv_python_pytest=$echod_python; break])
    done
  ])
  AS_IF([test "x$echod_cv_python_pytest" = xno], [PYTHON=:], [PYTHON=$echod_cv_python_pytest])
])
