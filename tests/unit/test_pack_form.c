/* SPDX-License-Identifier: MIT */
/* The packed form of a block: it has all there is to remember, and what has no place in it keeps a block from being packed. */
#include "config.h"

#include "pack_fixture.h"

/* What was watched: when it is forgotten, another space may have it. */
CORE_TEST(pack_form, forgotten_is_unwatched, .dev = { BIG })
{
	struct gm_as_config config = { .size = sizeof(config) };
	uint64_t va = app_adopted(w, 1, 7);
	struct gm_ctx *ctx;
	struct gm_as *as;

	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	rest(w);
	cr_assert_eq(packed(w), 1);
	cr_assert_eq(app_wrong(w, va, GM_BLOCK_PAGES, 7), 0);
	gm_sim_sleep_ns(w->sim, SECOND / 2);
	OK(gm_as_create(w->lib, 0, 0, &config, &as));
	OK(gm_as_attach(as, w->dev[0], GM_ATTACH_IDENTITY, NULL, &ctx));
	OK(gm_adopt(as, (void *)(uintptr_t)va, BLOCK, 0));
	OK(gm_migrate(as, va, BLOCK, w->dev[0], NULL));
	OK(gm_as_destroy(as));
}

/* What was lost with a device stays lost. */
CORE_TEST(pack_form, lost_stays_lost, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 1, 7), x;

	OK(gm_migrate(w->as, va, BLOCK, w->dev[0], NULL));
	dev_fill(w->ctx[0], va, GM_BLOCK_PAGES, 9);
	rest(w);
	cr_assert_eq(packed(w), 1);
	OK(gm_mock_lose(w->dev[0]));
	IS(gm_sim_load(w->sim, word_va(va, 3), &x, sizeof(x)), GM_RET_IO);
	rest(w);
	for (unsigned i = 0; i < GM_BLOCK_PAGES; i++)
		IS(gm_sim_load(w->sim, word_va(va, i), &x, sizeof(x)), GM_RET_IO);
}

/* The masks of the form, and what else it has: any values, in a block that nothing happens to. */
static struct gm_mask some_mask(unsigned i)
{
	struct gm_mask m = gm_mask_none();

	for (unsigned page = i; page < GM_BLOCK_PAGES; page += i + 2)
		gm_mask_set(&m, page);
	return m;
}

static bool packs(struct world *w, struct gm_block *b)
{
	uint64_t va = b->va;

	gm_block_put(b);
	rest(w);
	return gm_packed_of(gm_radix_get(&w->as->blocks, va / BLOCK));
}

/* Five different ones, so that some are alike: there is room for six. */
static struct gm_mask mask_for(unsigned shift, enum gm_pack_mask i)
{
	return (i + shift) % 7 == 6 ? gm_mask_not(gm_mask_none()) : some_mask((i + shift) % 5);
}

CORE_TEST(pack_form, every_mask_comes_back, .dev = { BIG })
{
	uint64_t va = app_adopted(w, 1, 7);
	struct gm_block *b, saved;
	struct gm_bnode no_pages;
	unsigned ctx = w->ctx[0]->index, dev = w->dev[0]->index;

	for (unsigned shift = 0; shift < 9; shift++) {
		OK(gm_block_obtain(w->as, va, &b));
		OK(gm_block_need_node(b, dev));
		OK(gm_block_need_map(b, ctx));
		saved = *b;
		no_pages = *b->node[dev];
		for (enum gm_pack_mask i = 0; i < GM_PACK_MASKS; i++)
			*gm_pack_mask(b, b->node[dev], b->map[ctx], i) = mask_for(shift, i);
		b->watched = shift & 1;
		b->huge = shift & 2;
		cr_assert(packs(w, b));
		b = gm_block_find(w->as, va);
		for (enum gm_pack_mask i = 0; i < GM_PACK_MASKS; i++) {
			struct gm_mask want = mask_for(shift, i);

			cr_assert(gm_mask_equal(gm_pack_mask(b, b->node[dev], b->map[ctx], i), &want), "mask %d", (int)i);
		}
		cr_assert_eq(b->watched, shift & 1);
		cr_assert_eq(b->huge, (shift & 2) != 0);
		b->managed = saved.managed;
		b->host = saved.host;
		b->staged = b->registered = b->edge = gm_mask_none();
		*b->node[dev] = no_pages;
		b->map[ctx]->read = b->map[ctx]->write = gm_mask_none();
		b->watched = b->huge = false;
		gm_block_put(b);
	}
}

/* What has no place in the form keeps a block from being packed. */
enum obstacle { BUSY, WANTED, LEAVING, DOOMED, POISONED, FAILED, UNSURE, TWO_MAPS, SEVEN_MASKS, SLICE, GRACE, OBSTACLES };

/* SLICE and GRACE are over by themselves, after a while. */
static void put_obstacle(struct world *w, struct gm_block *b, enum obstacle what, bool on)
{
	struct gm_mask *mask[] = { [BUSY] = &b->busy, [WANTED] = &b->wanted, [LEAVING] = &b->leaving, [DOOMED] = &b->doomed,
				   [POISONED] = &b->poisoned, [FAILED] = &b->failed, [UNSURE] = &b->map[0]->unsure };
	struct gm_mask one = on ? gm_mask_span(7, 8) : gm_mask_none();
	uint64_t now_ns = w->env->ops->now_ns(w->env);

	if (what <= UNSURE)
		*mask[what] = one;
	if (what == TWO_MAPS)
		b->map[0]->read = b->map[1]->read = one;
	for (enum gm_pack_mask i = GM_PACK_STAGED; what == SEVEN_MASKS && i < GM_PACK_MASKS; i++)
		*gm_pack_mask(b, b->node[0], b->map[0], i) = on ? some_mask(i) : gm_mask_none();
	if (what == SLICE)
		gm_slice_serve(&b->slice_cpu, 100 * SECOND, now_ns, &one);
	if (what == GRACE)
		b->doomed_ns = on ? now_ns + 100 * SECOND : 0;
}

CORE_TEST(pack_form, not_what_has_no_form, .dev = { BIG }, .as = { .flags = GM_AS_NO_THREADS, .slice_ns = 100 * SECOND })
{
	uint64_t va = app_adopted(w, 1, 7), next_ns;
	struct gm_block *b, *same;

	OK(gm_block_obtain(w->as, va, &b));
	OK(gm_block_need_node(b, 0));
	OK(gm_block_need_map(b, 0));
	OK(gm_block_need_map(b, 1));
	for (enum obstacle what = 0; what < OBSTACLES; what++) {
		put_obstacle(w, b, what, true);
		gm_block_put(b); /* nobody refers to it */
		gm_pack_stirred(w->as);
		for (unsigned i = 0; i < 4; i++) {
			(void)gm_work_once(w->as, &next_ns);
			rest(w);
		}
		same = gm_radix_get(&w->as->blocks, va / BLOCK);
		cr_assert_eq(same, b, "%d", (int)what);
		gm_block_get(b);
		put_obstacle(w, b, what, false);
		gm_sim_sleep_ns(w->sim, 300 * SECOND); /* the slice, and the grace */
	}
	gm_block_put(b);
	for (unsigned i = 0; i < 4; i++) { /* the last was seen too early, which nobody has to say again */
		(void)gm_work_once(w->as, &next_ns);
		rest(w);
	}
	cr_assert_eq(packed(w), 1, "but for these it would be");
}

/* Device faults that only map keep no time: the round that sees one counts from there. */
CORE_TEST(pack_form, not_what_was_just_mapped, .dev = { BIG }, .as = { .flags = GM_AS_NO_THREADS })
{
	uint64_t va = app_adopted(w, 1, 7), next_ns;
	struct gm_block *b;

	OK(gm_block_obtain(w->as, va, &b));
	(void)gm_work_once(w->as, &next_ns);
	b->touched = true;
	gm_block_put(b);
	for (unsigned round = 0; round < 2; round++) {
		gm_sim_sleep_ns(w->sim, SECOND + MS);
		for (unsigned i = 0; i < 4; i++)
			(void)gm_work_once(w->as, &next_ns);
		cr_assert_eq(packed(w), round);
	}
}

/* Nor is anything while the handler has messages, or is kept from reading. */
enum phase { MESSAGES, READER_HELD, NOTHING };

CORE_TEST(pack_form, not_under_the_handler, .dev = { BIG }, .as = { .flags = GM_AS_NO_THREADS })
{
	uint64_t va = app_adopted(w, 1, 7), next_ns;

	OK(gm_migrate(w->as, va, BLOCK / 2, w->dev[0], NULL));
	(void)gm_as_serve(w->as, 1);
	for (enum phase phase = MESSAGES; phase <= NOTHING; phase++) {
		atomic_store(&w->as->msgs_busy, phase == MESSAGES);
		if (phase == READER_HELD)
			cr_assert(gm_events_hold_reader(w->as));
		for (unsigned i = 0; i < 4; i++) {
			(void)gm_work_once(w->as, &next_ns);
			rest(w);
		}
		cr_assert_eq(packed(w), phase == NOTHING);
		if (phase == READER_HELD)
			gm_events_release_reader(w->as);
	}
}

struct release {
	struct world *w;
	uint64_t va;
	gm_ret_t ret;
};

static void release(void *arg)
{
	struct release *r = arg;

	r->ret = gm_release(r->w->as, (void *)(uintptr_t)r->va, 2 * BLOCK);
}

/* A mapping in place goes a moment after its region, which may take long; it is packed meanwhile, and nothing is wrong. */
CORE_TEST(pack_form, check_during_a_release, .dev = { BIG, "mock:vram=64M,visible=no,copy=async,copyns=4000000000" })
{
	uint64_t va = app_adopted(w, 2, 7);
	struct release r = { .w = w, .va = va };
	struct gm_thread *t;
	bool seen = false;

	OK(dev_touch(w->ctx[1], word_va(va, 0), true));
	OK(gm_sim_pin(w->sim, va + BLOCK + 5 * PAGE));
	OK(dev_touch(w->ctx[0], word_va(va, GM_BLOCK_PAGES + 5), false));
	t = spawn(w, release, &r);
	for (unsigned i = 0; i < 30; i++) {
		gm_sim_sleep_ns(w->sim, SECOND / 10);
		world_check(w);
		seen |= packed(w) && atomic_load(&w->as->releasing);
	}
	join(w, t);
	OK(r.ret);
	cr_assert(seen, "nothing was packed during the release");
}
