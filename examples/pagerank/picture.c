/* SPDX-License-Identifier: MIT */
/*
 * Takes the snapshots: gm_query() over every array, compared with the
 * snapshot before. A page that went and came back between two snapshots shows
 * as not moved; the table of counters, not the picture, knows about it.
 */
#include "picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows per array: the small arrays would be too thin to see in proportion. */
static const unsigned rows_of[PICTURE_ARRAYS] = { 84, 84, 22, 10 };

void picture_init(struct picture *picture, const char *title, uint64_t vram_bytes, uint64_t footprint_bytes,
		  unsigned iterations)
{
	memset(picture, 0, sizeof(*picture));
	picture->title = title;
	picture->vram_bytes = vram_bytes;
	picture->footprint_bytes = footprint_bytes;
	picture->iterations = iterations < PICTURE_ITERATIONS ? iterations : PICTURE_ITERATIONS;
	picture->of_iterations = iterations;
	picture->per_iteration = PICTURE_COLUMNS / picture->iterations - 1;
}

void picture_fini(struct picture *picture)
{
	unsigned i;

	for (i = 0; i < PICTURE_ARRAYS; i++)
		free(picture->array[i].on_device);
	free(picture->info);
	memset(picture, 0, sizeof(*picture));
}

int picture_array(struct picture *picture, unsigned which, const char *name, uint64_t va, uint64_t bytes)
{
	struct picture_array *array;
	unsigned row = 0;
	unsigned i;

	if (!picture)
		return 0;
	for (i = 0; i < which; i++)
		row += rows_of[i];
	array = &picture->array[which];
	array->name = name;
	array->bytes = bytes;
	array->va = va & ~(uint64_t)(GM_PAGE_BYTES - 1);
	array->pages = (size_t)((va + bytes - array->va + GM_PAGE_BYTES - 1) / GM_PAGE_BYTES);
	array->row = row;
	array->rows = rows_of[which];
	array->on_device = calloc(array->pages, 1);
	if (array->pages > picture->info_pages) {
		free(picture->info);
		picture->info = malloc(array->pages * sizeof(*picture->info));
		picture->info_pages = picture->info ? array->pages : 0;
	}
	if (!array->on_device || !picture->info) {
		fprintf(stderr, "pagerank: out of memory for the picture\n");
		return -1;
	}
	return 0;
}

static unsigned char cell_kind(size_t pages, size_t on_device, size_t arrived, size_t left)
{
	if (2 * arrived >= pages)
		return CELL_ARRIVED;
	if (2 * left >= pages)
		return CELL_HOME;
	return 2 * on_device >= pages ? CELL_DEVICE : CELL_HOST;
}

/* Pages [first, last) of an array become one cell. */
static unsigned char sum_up(struct picture *picture, struct picture_array *array, size_t first, size_t last)
{
	size_t on_device = 0;
	size_t arrived = 0;
	size_t left = 0;
	size_t p;

	for (p = first; p < last; p++) {
		unsigned char is = picture->info[p].place == GM_PLACE_DEVICE;

		on_device += is;
		arrived += is && !array->on_device[p];
		left += !is && array->on_device[p];
	}
	return cell_kind(last - first, on_device, arrived, left);
}

static int snapshot(struct picture *picture, struct gm_as *as, int host_phase)
{
	unsigned column = picture->columns;
	unsigned i;
	unsigned r;
	size_t p;

	if (column == PICTURE_COLUMNS)
		return 0;
	for (i = 0; i < PICTURE_ARRAYS; i++) {
		struct picture_array *array = &picture->array[i];
		gm_ret_t ret = gm_query(as, array->va, array->pages, picture->info);

		if (ret != GM_RET_SUCCESS) {
			fprintf(stderr, "pagerank: asking where %s is: %s: %s\n", array->name, gm_ret_name(ret),
				gm_last_error());
			return -1;
		}
		for (r = 0; r < array->rows; r++) {
			size_t first = array->pages * r / array->rows;
			size_t last = array->pages * (r + 1) / array->rows;

			/* An array of few pages: one page fills several rows. */
			picture->cell[column][array->row + r] =
				sum_up(picture, array, first, last > first ? last : first + 1);
		}
		for (p = 0; p < array->pages; p++) {
			array->on_device[p] = picture->info[p].place == GM_PLACE_DEVICE;
			picture->device_pages[column] += array->on_device[p];
		}
	}
	picture->host_phase[column] = host_phase;
	picture->columns++;
	return 0;
}

int picture_after_launch(struct picture *picture, struct gm_as *as, unsigned iteration, size_t done, size_t all)
{
	size_t n;

	if (!picture || iteration >= picture->iterations)
		return 0;
	n = picture->per_iteration < all ? picture->per_iteration : all;
	/* Whenever another nth part of the launches is done. */
	if (done * n / all == (done - 1) * n / all)
		return 0;
	return snapshot(picture, as, -1);
}

int picture_after_host(struct picture *picture, struct gm_as *as, unsigned iteration)
{
	if (!picture || iteration >= picture->iterations)
		return 0;
	return snapshot(picture, as, (int)iteration);
}
