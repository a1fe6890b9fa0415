/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of where every page is, taken between launches, for the picture.
 *
 * Pages are summed up in PICTURE_ROWS rows, some for each array; a snapshot is
 * a column. A cell shows what happened to most of its pages since the
 * snapshot before. Every function accepts NULL for "no picture wanted" and
 * returns -1 after having said what went wrong.
 */
#ifndef PICTURE_H
#define PICTURE_H

#include <gmem/gmem.h>

#define PICTURE_ARRAYS 4u
#define PICTURE_ROWS 200u
#define PICTURE_COLUMNS 240u
/* So many iterations are drawn, the first: all at once would show none of them in detail. */
#define PICTURE_ITERATIONS 3u

enum cell {
	CELL_HOST,    /* in host memory */
	CELL_DEVICE,  /* on the device, as in the snapshot before */
	CELL_ARRIVED, /* came to the device since */
	CELL_HOME,    /* came home since */
	CELL_KINDS,
};

struct picture_array {
	const char *name;
	uint64_t va;      /* first page */
	size_t pages;
	uint64_t bytes;
	unsigned row;     /* first row */
	unsigned rows;
	unsigned char *on_device; /* [pages], in the last snapshot */
};

struct picture {
	const char *title;
	char note[200];   /* one line of figures under the title */
	uint64_t vram_bytes;
	uint64_t footprint_bytes;
	unsigned per_iteration; /* snapshots between two host phases */
	unsigned iterations;    /* drawn */
	unsigned of_iterations; /* computed */
	struct picture_array array[PICTURE_ARRAYS];
	struct gm_page_info *info; /* room for the largest array */
	size_t info_pages;
	unsigned columns;
	unsigned char cell[PICTURE_COLUMNS][PICTURE_ROWS];
	size_t device_pages[PICTURE_COLUMNS];
	int host_phase[PICTURE_COLUMNS]; /* iteration that ended here, -1: none */
};

void picture_init(struct picture *picture, const char *title, uint64_t vram_bytes, uint64_t footprint_bytes,
		  unsigned iterations);
void picture_fini(struct picture *picture);
int picture_array(struct picture *picture, unsigned which, const char *name, uint64_t va, uint64_t bytes);
int picture_after_launch(struct picture *picture, struct gm_as *as, unsigned iteration, size_t done, size_t all);
int picture_after_host(struct picture *picture, struct gm_as *as, unsigned iteration);

/* One panel per picture (map_svg.c). */
int picture_write_svg(const struct picture *pictures, unsigned n, const char *path, const char *subtitle);

#endif
