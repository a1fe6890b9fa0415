/* SPDX-License-Identifier: MIT */
/*
 * Draws the snapshots: time to the right, addresses downward, one panel per
 * run, with a curve of the device memory in use below each.
 *
 * Equal neighbours in a row become one stroke, one path per colour, in a
 * coordinate system where a cell is 1 x 1: that keeps a picture of 100,000
 * cells small. All text comes from this program, none from the input.
 */
#include "picture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LEFT 112
#define TOP 178
#define CELL_W 4
#define CELL_H 2
#define GAP 8           /* between arrays */
#define CURVE_H 54
#define MAP_H (int)(PICTURE_ROWS * CELL_H + (PICTURE_ARRAYS - 1) * GAP)
#define PANEL_H (64 + MAP_H + 14 + CURVE_H + 44)
#define WIDTH (LEFT + (int)PICTURE_COLUMNS * CELL_W + 36)

static const struct {
	const char *colour;
	const char *text;
} kinds[CELL_KINDS] = {
	{ "#e4e1d8", "in host memory" },
	{ "#0072b2", "in device memory" },
	{ "#e69f00", "just arrived on the device" },
	{ "#cc79a7", "just came home to the host" },
};

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

static int bottom_of(unsigned panels)
{
	return TOP + (int)panels * PANEL_H;
}

static void draw_head(FILE *out, const struct picture *p, unsigned panels, const char *subtitle)
{
	int height = bottom_of(panels) + 6;
	unsigned i;

	fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
		"font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">\n",
		WIDTH, height, WIDTH, height);
	fprintf(out, "<title>Where every page was while PageRank ran</title>\n<rect width=\"%d\" height=\"%d\" "
		"fill=\"#fff\"/>\n", WIDTH, height);
	fprintf(out, "<text x=\"24\" y=\"36\" font-size=\"22\" font-weight=\"bold\">Where every page was: %.1f MiB of "
		"work on a device with %.1f MiB of memory</text>\n", mib(p->footprint_bytes), mib(p->vram_bytes));
	fprintf(out, "<text x=\"24\" y=\"60\">%s</text>\n", subtitle);
	fprintf(out, "<g fill=\"#555\"><text x=\"24\" y=\"88\">Each column is a snapshot taken between two launches "
		"(iterations 1 to %u of %u), each row one of %u pieces of the arrays.</text>\n", p->iterations,
		p->of_iterations, PICTURE_ROWS);
	fprintf(out, "<text x=\"24\" y=\"106\">The device sweeps over the ranks of one array again and again, and each "
		"time completes one tile of the other: the stairs.</text>\n");
	fprintf(out, "<text x=\"24\" y=\"124\">At a dashed line the host reads all ranks through its own pointers, so "
		"they come home; then A and B change places.</text></g>\n");
	for (i = 0; i < CELL_KINDS; i++) {
		fprintf(out, "<rect x=\"%u\" y=\"142\" width=\"16\" height=\"16\" fill=\"%s\" stroke=\"#999\"/>",
			LEFT + i * 225, kinds[i].colour);
		fprintf(out, "<text x=\"%u\" y=\"155\">%s</text>\n", LEFT + 23 + i * 225, kinds[i].text);
	}
}

/* Strokes of one kind in one array. */
static void draw_kind(FILE *out, const struct picture *p, const struct picture_array *a, unsigned char kind)
{
	unsigned r;
	unsigned c;
	unsigned begin;

	fprintf(out, "<path stroke=\"%s\" d=\"", kinds[kind].colour);
	for (r = a->row; r < a->row + a->rows; r++) {
		for (c = 0; c < p->columns; c++) {
			if (p->cell[c][r] != kind)
				continue;
			for (begin = c; c < p->columns && p->cell[c][r] == kind; c++)
				;
			fprintf(out, "M%u %u.5h%u", begin, r - a->row, c - begin);
		}
	}
	fprintf(out, "\"/>\n");
}

static void draw_array(FILE *out, const struct picture *p, const struct picture_array *a, int y)
{
	int middle = y + (int)a->rows * CELL_H / 2;
	int kind;

	fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-weight=\"bold\">%s</text>", LEFT - 10,
		a->rows > 12 ? middle - 2 : middle + 4, a->name);
	if (a->rows > 12)
		fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-size=\"11\" fill=\"#555\">"
			"%.1f MiB</text>", LEFT - 10, middle + 13, mib(a->bytes));
	fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"%u\" height=\"%u\" fill=\"%s\"/>\n", LEFT, y,
		p->columns * CELL_W, a->rows * CELL_H, kinds[CELL_HOST].colour);
	fprintf(out, "<g transform=\"translate(%d %d) scale(%d %d)\" stroke-width=\"1\" "
		"shape-rendering=\"crispEdges\">\n", LEFT, y, CELL_W, CELL_H);
	for (kind = CELL_DEVICE; kind < CELL_KINDS; kind++)
		draw_kind(out, p, a, (unsigned char)kind);
	fprintf(out, "</g>\n");
}

/* Dashed lines where the host had its turn, and the iterations between them. */
static void draw_phases(FILE *out, const struct picture *p, int top, int bottom)
{
	int last = LEFT;
	unsigned c;

	for (c = 0; c < p->columns; c++) {
		int x = LEFT + (int)(c + 1) * CELL_W;

		if (p->host_phase[c] < 0)
			continue;
		fprintf(out, "<path d=\"M%d %dV%d\" stroke=\"#333\" stroke-width=\"1\" stroke-dasharray=\"3 3\" "
			"opacity=\"0.7\"/>", x, top, bottom);
		fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" font-size=\"11\">iteration %d</text>\n",
			(last + x) / 2, bottom + 16, p->host_phase[c] + 1);
		last = x;
	}
	fprintf(out, "<text x=\"%u\" y=\"%d\" text-anchor=\"end\" font-size=\"11\" fill=\"#555\">time, in launches "
		"&#8594;</text>\n", LEFT + p->columns * CELL_W, bottom + 32);
}

static void draw_curve(FILE *out, const struct picture *p, int y)
{
	double scale = CURVE_H / (1.08 * (double)p->vram_bytes);
	double high = y + CURVE_H - scale * (double)p->vram_bytes;
	unsigned c;

	fprintf(out, "<path fill=\"%s\" opacity=\"0.6\" d=\"M%d %d", kinds[CELL_DEVICE].colour, LEFT, y + CURVE_H);
	for (c = 0; c < p->columns; c++)
		fprintf(out, "V%.1fh%d", y + CURVE_H - scale * (double)p->device_pages[c] * GM_PAGE_BYTES, CELL_W);
	fprintf(out, "V%dz\"/>\n", y + CURVE_H);
	fprintf(out, "<path d=\"M%d %.1fh%u\" stroke=\"#c00\" stroke-dasharray=\"6 3\"/><path d=\"M%d %dh%u\" "
		"stroke=\"#999\"/>\n", LEFT, high, p->columns * CELL_W, LEFT, y + CURVE_H, p->columns * CELL_W);
	fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\" font-size=\"11\" fill=\"#c00\">%.1f MiB</text>\n",
		LEFT - 10, high + 6, mib(p->vram_bytes));
	fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-size=\"11\">device</text>"
		"<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-size=\"11\">memory used</text>\n", LEFT - 10, y + 30,
		LEFT - 10, y + 44);
}

static void draw_panel(FILE *out, const struct picture *p, int y)
{
	int top = y + 54;
	int at = top;
	unsigned i;

	fprintf(out, "<text x=\"%d\" y=\"%d\" font-size=\"16\" font-weight=\"bold\">%s</text>\n", LEFT, y + 20,
		p->title);
	fprintf(out, "<text x=\"%d\" y=\"%d\" fill=\"#555\">%s</text>\n", LEFT, y + 41, p->note);
	fprintf(out, "<text transform=\"translate(18 %d) rotate(-90)\" text-anchor=\"middle\" font-size=\"11\" "
		"fill=\"#555\">address</text>\n", top + MAP_H / 2);
	for (i = 0; i < PICTURE_ARRAYS; i++) {
		draw_array(out, p, &p->array[i], at);
		at += (int)p->array[i].rows * CELL_H + GAP;
	}
	draw_curve(out, p, top + MAP_H + 14);
	draw_phases(out, p, top, top + MAP_H + 14 + CURVE_H);
}

int picture_write_svg(const struct picture *pictures, unsigned n, const char *path, const char *subtitle)
{
	FILE *out = fopen(path, "w");
	bool failed;
	unsigned i;

	if (!out) {
		fprintf(stderr, "pagerank: %s: %s\n", path, strerror(errno));
		return -1;
	}
	draw_head(out, &pictures[0], n, subtitle);
	for (i = 0; i < n; i++)
		draw_panel(out, &pictures[i], bottom_of(i));
	fprintf(out, "</svg>\n");
	failed = ferror(out);
	if (fclose(out) || failed) {
		fprintf(stderr, "pagerank: %s: could not be written completely\n", path);
		return -1;
	}
	return 0;
}
