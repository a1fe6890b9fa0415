# SPDX-License-Identifier: MIT
# examples: built against an installed library only (./demo, make installcheck), never from here.

EXAMPLE_FILES = \
	examples/backend-template/main.c \
	examples/backend-template/toy.c \
	examples/hello.c \
	examples/inthread.c \
	examples/mock-runtime/test_tinyrt.c \
	examples/mock-runtime/tinyrt.c \
	examples/mock-runtime/tinyrt.h \
	examples/own-device.c \
	examples/pagerank/device.c \
	examples/pagerank/device.h \
	examples/pagerank/graph.c \
	examples/pagerank/graph.h \
	examples/pagerank/graph_apt.c \
	examples/pagerank/graph_file.c \
	examples/pagerank/graph_packages.c \
	examples/pagerank/job.c \
	examples/pagerank/main.c \
	examples/pagerank/map_svg.c \
	examples/pagerank/options.c \
	examples/pagerank/options.h \
	examples/pagerank/picture.c \
	examples/pagerank/picture.h \
	examples/pagerank/rank.c \
	examples/pagerank/rank.h \
	examples/pagerank/show.c \
	examples/pagerank/show.h

EXTRA_DIST += \
	$(EXAMPLE_FILES) \
	examples/.clang-tidy \
	examples/mock-runtime/Makefile \
	examples/pagerank/Makefile \
	examples/pagerank/fixture.txt \
	examples/pagerank/make-fixture.py
LINT_FILES += $(EXAMPLE_FILES)

# What a vendor begins with is installed, so that headers, library and documents are all that is needed.
templatedir = $(pkgdatadir)/backend-template
dist_template_DATA = \
	examples/backend-template/Makefile \
	examples/backend-template/README.md \
	examples/backend-template/main.c \
	examples/backend-template/toy.c
