dnl SPDX-License-Identifier: MIT
dnl
dnl GM_APPEND_CFLAGS(VARIABLE, FLAGS)
dnl Append to VARIABLE each of FLAGS that the C compiler takes without a word.
AC_DEFUN([GM_APPEND_CFLAGS], [
m4_foreach_w([gm_flag], [$2], [
	AS_VAR_PUSHDEF([gm_var], [gm_cv_cflag_[]gm_flag])
	AC_CACHE_CHECK([whether $CC accepts ]gm_flag, [gm_var], [
		gm_save_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS -Werror gm_flag"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [AS_VAR_SET([gm_var], [yes])], [AS_VAR_SET([gm_var], [no])])
		CFLAGS=$gm_save_CFLAGS
	])
	AS_VAR_IF([gm_var], [yes], [$1="$$1 gm_flag"])
	AS_VAR_POPDEF([gm_var])
])
])

dnl GM_SANITIZERS
dnl --enable-sanitizers=LIST: sets SANITIZER_FLAGS, or ends configure when the
dnl compiler cannot link with them: asking for a check and not getting it must
dnl not go unnoticed. Every finding ends the program (-fno-sanitize-recover).
AC_DEFUN([GM_SANITIZERS], [
AC_ARG_ENABLE([sanitizers],
	[AS_HELP_STRING([--enable-sanitizers=LIST], [build with sanitizers: address,undefined or thread])],
	[], [enable_sanitizers=no])
SANITIZER_FLAGS=
AS_CASE([$enable_sanitizers],
	[no], [],
	[yes], [AC_MSG_ERROR([--enable-sanitizers needs a list, such as address,undefined])],
	[
		SANITIZER_FLAGS="-fsanitize=$enable_sanitizers -fno-sanitize-recover=all -fno-omit-frame-pointer"
		AC_MSG_CHECKING([whether $CC links with -fsanitize=$enable_sanitizers])
		gm_save_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS $SANITIZER_FLAGS"
		AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes])],
			[AC_MSG_RESULT([no])
			AC_MSG_ERROR([the compiler or its run-time library lacks -fsanitize=$enable_sanitizers])])
		CFLAGS=$gm_save_CFLAGS
	])
AM_CONDITIONAL([SANITIZERS], [test -n "$SANITIZER_FLAGS"])
AC_SUBST([SANITIZER_FLAGS])
])
