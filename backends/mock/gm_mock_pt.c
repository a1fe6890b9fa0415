/* SPDX-License-Identifier: MIT */
/*
 * The page table: four levels of 512 entries, 48 bits of VA. It lives in
 * memory of the services, not in the device memory that the core manages.
 *
 *   level 3 (512 GiB an entry) -> 2 (1 GiB) -> 1 (2 MiB) -> 0 (4 KiB)
 *
 * An entry of level 1 is a table or a 2 MiB page. A 64 KiB page is 16
 * entries of level 0 in an aligned group, each with the bit E_64K and its own
 * address: so one walk can tell the size, and splitting means clearing bits.
 *
 * Changes of a range run in one critical section: (1) count the tables that
 * it would take, (2) if the pool has fewer, leave, allocate, begin again;
 * (3) else apply, which cannot fail. So a range is changed altogether or not
 * at all, no allocation happens under the lock, and a walker never sees half a
 * change. Tables that became empty go to the pool, freed after the section.
 *
 * The page table of hardware that a runtime opened (gm_mock_hw.c) is shared:
 * an entry with E_OWN is the runtime's. A change of one side passes over the
 * entries of the other, and an enter that meets one is refused as a whole.
 */
#include "config.h"

#include <assert.h>

#include "backends/mock/gm_mock_internal.h"

#define E_VALID UINT64_C(1)
#define E_TABLE UINT64_C(2)
#define E_WRITE UINT64_C(4)
#define E_ATOMIC UINT64_C(8)
#define E_HOST UINT64_C(16)
#define E_64K UINT64_C(32)
#define E_OWN UINT64_C(64) /* the runtime's; only in a page table that is shared */
#define E_RIGHTS (E_WRITE | E_ATOMIC)
#define E_ADDR (~UINT64_C(0xfff))

#define ENTRIES 512u
#define GROUP 16u /* entries of a 64 KiB page */
#define ROOT_LEVEL 3
#define LEVELS 4
#define VA_END (UINT64_C(1) << 48)
#define BYTES_4K (UINT64_C(1) << GM_MOCK_SHIFT_4K)
#define BYTES_64K (UINT64_C(1) << GM_MOCK_SHIFT_64K)
#define BYTES_2M (UINT64_C(1) << GM_MOCK_SHIFT_2M)

struct gm_mock_table {
	uint64_t entry[ENTRIES];
	unsigned used;              /* entries that are not 0 */
	struct gm_mock_table *next; /* in a pool */
};

/* Tables to take from while the lock is held; also where those go that were given up. */
struct pool {
	struct gm_mock_table *first;
	size_t n;
};

enum change_op {
	CHANGE_ENTER,
	CHANGE_REMOVE,
	CHANGE_PROTECT,
};

struct change {
	enum change_op op;
	uint64_t va, end; /* the range */
	uint64_t pa;      /* ENTER: of va */
	uint64_t bits;    /* ENTER, PROTECT: E_* */
	uint64_t own;     /* E_OWN: a change of the runtime's */
};

/* The tables on the way to an address; [0] is NULL where there is no table of level 0. */
struct path {
	struct gm_mock_table *t[LEVELS];
};

static unsigned level_shift(int level)
{
	return GM_MOCK_SHIFT_4K + 9u * (unsigned)level;
}

static unsigned entry_index(uint64_t va, int level)
{
	return (unsigned)(va >> level_shift(level)) % ENTRIES;
}

static bool is_table(uint64_t entry)
{
	return (entry & E_TABLE) != 0;
}

static struct gm_mock_table *table_of(uint64_t entry)
{
	assert(is_table(entry));
	return (struct gm_mock_table *)(uintptr_t)(entry & ~(E_VALID | E_TABLE));
}

static uint64_t table_entry(struct gm_mock_table *table)
{
	return (uint64_t)(uintptr_t)table | E_VALID | E_TABLE;
}

static void set_entry(struct gm_mock_table *table, unsigned index, uint64_t value)
{
	table->used += (value != 0) - (table->entry[index] != 0);
	table->entry[index] = value;
}

static bool has_size(const struct gm_mock *m, unsigned shift)
{
	return (m->config.page_sizes >> shift) & 1;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* End of the piece of the range at va that one entry of level 1 covers. */
static uint64_t chunk_end(uint64_t va, uint64_t end)
{
	return min_u64((va | (BYTES_2M - 1)) + 1, end);
}

static void pool_put(struct pool *pool, struct gm_mock_table *table)
{
	table->next = pool->first;
	pool->first = table;
	pool->n++;
}

/* An empty table. Those that were given up in this section are not empty: clear. */
static struct gm_mock_table *pool_take(struct pool *pool)
{
	struct gm_mock_table *table = pool->first;

	assert(table);
	pool->first = table->next;
	pool->n--;
	*table = (struct gm_mock_table){ .used = 0 };
	return table;
}

static gm_ret_t pool_grow(struct gm_mock_pt *pt, struct pool *pool, size_t n)
{
	while (pool->n < n) {
		struct gm_mock_table *table = pt->svc->alloc(pt->svc->self, sizeof(*table));

		if (!table)
			return GM_RET_NOMEM;
		pool_put(pool, table);
	}
	return GM_RET_SUCCESS;
}

static void pool_free(struct gm_mock_pt *pt, struct pool *pool)
{
	while (pool->first) {
		struct gm_mock_table *table = pool->first;

		pool->first = table->next;
		pt->svc->free(pt->svc->self, table, sizeof(*table));
	}
	pool->n = 0;
}

/*
 * Find the tables on the way to va, making missing ones of level 1 and 2 if
 * there is a pool. Returns where the part of the VA space ends that the last
 * entry looked at covers: what may be skipped if t[1] is NULL.
 */
static uint64_t path_find(struct gm_mock_pt *pt, uint64_t va, struct pool *pool, struct path *path)
{
	*path = (struct path){ .t[ROOT_LEVEL] = pt->root };
	for (int level = ROOT_LEVEL; level > 0; level--) {
		struct gm_mock_table *table = path->t[level];
		unsigned index = entry_index(va, level);

		if (level > 1 && pool && table->entry[index] == 0)
			set_entry(table, index, table_entry(pool_take(pool)));
		if (!is_table(table->entry[index]))
			return (va | ((UINT64_C(1) << level_shift(level)) - 1)) + 1;
		path->t[level - 1] = table_of(table->entry[index]);
	}
	return (va | (BYTES_2M - 1)) + 1;
}

/* Give up tables that became empty. */
static void path_prune(struct path *path, uint64_t va, struct pool *pool)
{
	for (int level = 0; level < ROOT_LEVEL; level++) {
		if (!path->t[level])
			continue;
		if (path->t[level]->used)
			return;
		set_entry(path->t[level + 1], entry_index(va, level + 1), 0);
		pool_put(pool, path->t[level]);
	}
}

/* Will the chunk [va, end) be one page of 2 MiB? */
static bool enters_2m(const struct gm_mock *m, const struct change *c, uint64_t va, uint64_t end)
{
	return has_size(m, GM_MOCK_SHIFT_2M) && end - va == BYTES_2M && (c->pa + (va - c->va)) % BYTES_2M == 0;
}

static size_t count_enter(struct gm_mock *m, struct gm_mock_pt *pt, const struct change *c)
{
	struct path path;
	size_t n = 0;

	for (uint64_t va = c->va, end; va < c->end; va = end) {
		end = chunk_end(va, c->end);
		path_find(pt, va, NULL, &path);
		/* Tables of level 2 and 1 are shared by neighbouring chunks: count each where it begins. */
		for (int level = 2; level > 0; level--) {
			bool first = va == c->va || va % (UINT64_C(1) << level_shift(level + 1)) == 0;

			n += !path.t[level] && first;
		}
		n += !path.t[0] && !enters_2m(m, c, va, end);
	}
	return n;
}

/* Does changing [va, end), a chunk, cut a 2 MiB page? */
static bool cuts_2m(struct gm_mock_pt *pt, uint64_t va, uint64_t end)
{
	struct path path;

	if (end - va == BYTES_2M)
		return false;
	path_find(pt, va, NULL, &path);
	return path.t[1] && !path.t[0] && path.t[1]->entry[entry_index(va, 1)] != 0;
}

/* Only the first and the last chunk can cut a page. */
static size_t count_cuts(struct gm_mock_pt *pt, const struct change *c)
{
	uint64_t first_end = chunk_end(c->va, c->end);
	uint64_t last = (c->end - 1) & ~(BYTES_2M - 1);
	size_t n = cuts_2m(pt, c->va, first_end);

	if (last > c->va)
		n += cuts_2m(pt, last, c->end);
	return n;
}

/* Give the chunk at va a table of level 0; a 2 MiB page there is split into the next smaller size. */
static void make_level0(struct gm_mock *m, struct path *path, uint64_t va, struct pool *pool)
{
	unsigned index = entry_index(va, 1);
	uint64_t old = path->t[1]->entry[index];
	struct gm_mock_table *table = pool_take(pool);

	if (old) {
		uint64_t hint = has_size(m, GM_MOCK_SHIFT_64K) ? E_64K : 0;

		for (unsigned i = 0; i < ENTRIES; i++)
			set_entry(table, i, (old + i * BYTES_4K) | hint);
	}
	set_entry(path->t[1], index, table_entry(table));
	path->t[0] = table;
}

/* Make 4 KiB pages of the 64 KiB page that entry `index` belongs to. */
static void split_group(struct gm_mock_table *table, unsigned index)
{
	unsigned first = index / GROUP * GROUP;

	for (unsigned i = first; i < first + GROUP; i++)
		table->entry[i] &= ~E_64K;
}

/* Split the 64 KiB page that a range would cut at entry `index`. */
static void break_group(struct gm_mock *m, struct gm_mock_table *table, unsigned index)
{
	if (index % GROUP == 0 || !(table->entry[index] & E_64K))
		return;
	assert(has_size(m, GM_MOCK_SHIFT_4K));
	(void)m;
	split_group(table, index);
}

/* Before an enter an address may be mapped to the same place only; a planted bug excuses. */
static void check_same(struct gm_mock *m, uint64_t old, uint64_t entry)
{
	assert(old == 0 || atomic_load(&m->unsound) || ((old ^ entry) & (E_ADDR | E_HOST)) == 0);
	(void)m;
	(void)old;
	(void)entry;
}

static void enter_small(struct gm_mock *m, struct gm_mock_table *table, unsigned i, unsigned end, uint64_t entry)
{
	break_group(m, table, i);
	break_group(m, table, end);
	while (i < end) {
		bool group = has_size(m, GM_MOCK_SHIFT_64K) && i % GROUP == 0 && end - i >= GROUP &&
			     (entry & E_ADDR) % BYTES_64K == 0;
		unsigned n = group ? GROUP : 1;

		assert(group || has_size(m, GM_MOCK_SHIFT_4K));
		/* Only a planted bug can enter a part of a group at another address. */
		if (!group && (table->entry[i] & E_64K))
			split_group(table, i);
		for (unsigned k = 0; k < n; k++, i++, entry += BYTES_4K) {
			check_same(m, table->entry[i], entry);
			set_entry(table, i, entry | (group ? E_64K : 0));
		}
	}
}

static void enter_2m(struct gm_mock *m, struct path *path, uint64_t va, uint64_t entry, struct pool *pool)
{
	unsigned index = entry_index(va, 1);

	if (path->t[0]) {
		for (unsigned i = 0; i < ENTRIES; i++)
			check_same(m, path->t[0]->entry[i], entry + i * BYTES_4K);
		pool_put(pool, path->t[0]);
	} else {
		check_same(m, path->t[1]->entry[index], entry);
	}
	set_entry(path->t[1], index, entry);
}

static void apply_enter(struct gm_mock *m, struct gm_mock_pt *pt, const struct change *c, struct pool *pool)
{
	struct path path;

	for (uint64_t va = c->va, end; va < c->end; va = end) {
		uint64_t entry = (c->pa + (va - c->va)) | c->bits | E_VALID;
		unsigned first = entry_index(va, 0);

		end = chunk_end(va, c->end);
		path_find(pt, va, pool, &path);
		assert(path.t[1]);
		if (enters_2m(m, c, va, end)) {
			enter_2m(m, &path, va, entry, pool);
			continue;
		}
		if (!path.t[0])
			make_level0(m, &path, va, pool);
		enter_small(m, path.t[0], first, first + (unsigned)((end - va) / BYTES_4K), entry);
	}
}

static uint64_t changed_entry(const struct change *c, uint64_t entry)
{
	if ((entry & E_OWN) != c->own)
		return entry;
	if (c->op == CHANGE_REMOVE || entry == 0)
		return 0;
	return (entry & ~E_RIGHTS) | c->bits;
}

/* REMOVE and PROTECT of [va, end), a chunk whose table of level 1 exists. */
static void apply_chunk(struct gm_mock *m, struct path *path, const struct change *c, uint64_t va, uint64_t end,
			struct pool *pool)
{
	unsigned index = entry_index(va, 1);
	unsigned first = entry_index(va, 0), last = first + (unsigned)((end - va) / BYTES_4K);
	uint64_t old = path->t[1]->entry[index];

	if (old == 0)
		return;
	if (!path->t[0] && end - va == BYTES_2M) {
		set_entry(path->t[1], index, changed_entry(c, old));
		return;
	}
	if (!path->t[0])
		make_level0(m, path, va, pool);
	break_group(m, path->t[0], first);
	break_group(m, path->t[0], last);
	for (unsigned i = first; i < last; i++)
		set_entry(path->t[0], i, changed_entry(c, path->t[0]->entry[i]));
}

static void apply_cut(struct gm_mock *m, struct gm_mock_pt *pt, const struct change *c, struct pool *pool)
{
	struct path path;

	for (uint64_t va = c->va, end; va < c->end; va = end) {
		end = min_u64(path_find(pt, va, NULL, &path), c->end);
		if (!path.t[1])
			continue;
		apply_chunk(m, &path, c, va, end, pool);
		path_prune(&path, va, pool);
	}
}

/* Is anything mapped in the range, but entries whose E_OWN is `but`? */
static bool any_entry(struct gm_mock_pt *pt, uint64_t va, uint64_t last, uint64_t but)
{
	struct path path;

	for (uint64_t end; va < last; va = end) {
		unsigned first = entry_index(va, 0), n;
		uint64_t *entry;

		end = min_u64(path_find(pt, va, NULL, &path), last);
		if (!path.t[1])
			continue;
		n = path.t[0] ? (unsigned)((end - va) / BYTES_4K) : 1;
		entry = path.t[0] ? &path.t[0]->entry[first] : &path.t[1]->entry[entry_index(va, 1)];
		for (unsigned i = 0; i < n; i++) {
			if (entry[i] && (entry[i] & E_OWN) != but)
				return true;
		}
	}
	return false;
}

/* Does an enter meet mappings of the other side? The runtime meets its own as well. */
static bool meets_other(struct gm_mock_pt *pt, const struct change *c)
{
	return c->op == CHANGE_ENTER && pt->shared && any_entry(pt, c->va, c->end, c->own ? ~UINT64_C(0) : 0);
}

static gm_ret_t change_range(struct gm_mock *m, struct gm_mock_pt *pt, const struct change *c)
{
	struct pool pool = { .n = 0 };
	gm_ret_t ret = GM_RET_SUCCESS;

	for (;;) {
		size_t need;

		gm_mock_spin_lock(m->svc, &pt->lock);
		if (meets_other(pt, c)) {
			gm_mock_spin_unlock(&pt->lock);
			ret = GM_RET_EXIST;
			goto out;
		}
		need = c->op == CHANGE_ENTER ? count_enter(m, pt, c) : count_cuts(pt, c);
		if (need <= pool.n)
			break;
		gm_mock_spin_unlock(&pt->lock);
		ret = pool_grow(pt, &pool, need);
		if (ret != GM_RET_SUCCESS)
			goto out;
	}
	if (c->op == CHANGE_ENTER)
		apply_enter(m, pt, c, &pool);
	else
		apply_cut(m, pt, c, &pool);
	gm_mock_spin_unlock(&pt->lock);
out:
	pool_free(pt, &pool);
	return ret;
}

static uint64_t rights_bits(uint32_t pte)
{
	return (pte & GM_PTE_WRITE ? E_WRITE : 0) | (pte & GM_PTE_ATOMIC ? E_ATOMIC : 0);
}

gm_ret_t gm_mock_pt_init(struct gm_mock *m, struct gm_mock_pt *pt)
{
	atomic_flag_clear(&pt->lock.held);
	pt->svc = m->svc;
	pt->shared = false;
	pt->root = pt->svc->alloc(pt->svc->self, sizeof(*pt->root));
	return pt->root ? GM_RET_SUCCESS : GM_RET_NOMEM;
}

void gm_mock_pt_drop(struct gm_mock *m, struct gm_mock_pt *pt)
{
	/* Cuts nothing, so needs no memory. */
	struct change all = { .op = CHANGE_REMOVE, .va = 0, .end = VA_END };
	struct pool pool = { .n = 0 };

	gm_mock_spin_lock(m->svc, &pt->lock);
	apply_cut(m, pt, &all, &pool);
	gm_mock_spin_unlock(&pt->lock);
	pool_free(pt, &pool);
}

void gm_mock_pt_fini(struct gm_mock *m, struct gm_mock_pt *pt)
{
	gm_mock_pt_drop(m, pt);
	pt->svc->free(pt->svc->self, pt->root, sizeof(*pt->root));
	pt->root = NULL;
}

gm_ret_t gm_mock_pt_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			  uint32_t pte)
{
	struct change c = { .op = CHANGE_ENTER, .va = va, .end = va + bytes, .pa = pa };

	c.bits = rights_bits(pte) | (pte & GM_PTE_HOST ? E_HOST : 0);
	return change_range(m, pt, &c);
}

gm_ret_t gm_mock_pt_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes)
{
	struct change c = { .op = CHANGE_REMOVE, .va = va, .end = va + bytes };

	return change_range(m, pt, &c);
}

gm_ret_t gm_mock_pt_protect(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes, uint32_t pte)
{
	struct change c = { .op = CHANGE_PROTECT, .va = va, .end = va + bytes, .bits = rights_bits(pte) };

	return change_range(m, pt, &c);
}

gm_ret_t gm_mock_pt_own_enter(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t pa, uint64_t bytes,
			      uint32_t pte)
{
	struct change c = { .op = CHANGE_ENTER, .va = va, .end = va + bytes, .pa = pa, .own = E_OWN };

	c.bits = rights_bits(pte) | E_OWN;
	return change_range(m, pt, &c);
}

gm_ret_t gm_mock_pt_own_remove(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, uint64_t bytes)
{
	struct change c = { .op = CHANGE_REMOVE, .va = va, .end = va + bytes, .own = E_OWN };

	return change_range(m, pt, &c);
}

/* The entry that maps va and the size of its page; 0: none. */
static uint64_t walk_locked(struct gm_mock_pt *pt, uint64_t va, uint32_t *shift)
{
	struct path path;
	uint64_t entry;

	path_find(pt, va, NULL, &path);
	if (!path.t[1])
		return 0;
	if (!path.t[0]) {
		*shift = GM_MOCK_SHIFT_2M;
		return path.t[1]->entry[entry_index(va, 1)];
	}
	entry = path.t[0]->entry[entry_index(va, 0)];
	*shift = entry & E_64K ? GM_MOCK_SHIFT_64K : GM_MOCK_SHIFT_4K;
	/* Every entry of a group has its own address; the page begins at the first one's. */
	return entry & E_64K ? entry - entry_index(va, 0) % GROUP * BYTES_4K : entry;
}

bool gm_mock_pt_walk(struct gm_mock *m, struct gm_mock_pt *pt, uint64_t va, struct gm_mock_xlate *xlate)
{
	uint32_t shift = 0;
	uint64_t entry;

	gm_mock_spin_lock(m->svc, &pt->lock);
	entry = walk_locked(pt, gm_mock_bug_va(m, va), &shift);
	gm_mock_spin_unlock(&pt->lock);
	if (entry == 0)
		return false;
	xlate->va = va & ~((UINT64_C(1) << shift) - 1);
	xlate->pa = entry & E_ADDR;
	xlate->shift = shift;
	xlate->pte = (entry & E_WRITE ? GM_PTE_WRITE : 0) | (entry & E_ATOMIC ? GM_PTE_ATOMIC : 0) |
		     (entry & E_HOST ? GM_PTE_HOST : 0);
	return true;
}

bool gm_mock_pt_empty(struct gm_mock *m, struct gm_mock_pt *pt)
{
	bool empty;

	gm_mock_spin_lock(m->svc, &pt->lock);
	empty = pt->shared ? !any_entry(pt, 0, VA_END, E_OWN) : pt->root->used == 0;
	gm_mock_spin_unlock(&pt->lock);
	return empty;
}
