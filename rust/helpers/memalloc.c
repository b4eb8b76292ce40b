// SPDX-License-Identifier: GPL-2.0

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/vmalloc.h>
#include "helpers.h"

unsigned int bdio_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

/* What this task must not do to get memory, for another one to go by. */
unsigned int bdio_memalloc_flags(void)
{
	return current->flags & (PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS);
}

unsigned int bdio_memalloc_flags_save(unsigned int flags)
{
	return memalloc_flags_save(flags);
}

void bdio_memalloc_flags_restore(unsigned int flags)
{
	memalloc_flags_restore(flags);
}

/*
 * Memory for devices to write to, charged to the memory cgroup of the task, or
 * else to nobody: nobody is to be killed for what is given back in a moment.
 */
void *bdio_alloc_bounce(size_t len, bool may_sleep)
{
	const gfp_t gfp = (may_sleep ? GFP_KERNEL : GFP_NOWAIT) | __GFP_NOWARN;
	void *memory;

	memory = kvmalloc(len, gfp | __GFP_ACCOUNT | __GFP_NORETRY);
	return memory ?: kvmalloc(len, gfp);
}

struct page *bdio_kv_to_page(const void *addr)
{
	return is_vmalloc_addr(addr) ? vmalloc_to_page(addr) : virt_to_page(addr);
}

phys_addr_t bdio_kv_to_phys(const void *addr)
{
	return page_to_phys(bdio_kv_to_page(addr)) + offset_in_page(addr);
}

/*
 * Whether all pages of a folio are known to be dirty. Filesystems have a dirty
 * bit for each block of a folio, of which only they know: a dirty folio may have
 * clean blocks. The memory of a task, shared memory and huge pages have none.
 */
static bool bdio_folio_is_all_dirty(const struct folio *folio)
{
	return folio_test_dirty(folio) &&
	       (folio_test_swapbacked(folio) || folio_test_hugetlb(folio));
}

/* Of pages that follow each other. */
bool bdio_pages_are_dirty(struct page *page, size_t nr)
{
	for (;;) {
		struct folio *folio = page_folio(page);
		size_t rest = folio_nr_pages(folio) - folio_page_idx(folio, page);

		if (!bdio_folio_is_all_dirty(folio))
			return false;
		if (nr <= rest)
			return true;
		nr -= rest;
		page += rest;
	}
}

/*
 * Mark pages that follow each other dirty, and unpin them. Unlike
 * unpin_user_page_range_dirty_lock(), which leaves a folio alone if any block of
 * it is dirty, this tells the filesystem, which marks all blocks of the folio.
 */
void bdio_unpin_dirty(struct page *page, size_t nr)
{
	for (;;) {
		struct folio *folio = page_folio(page);
		size_t rest = folio_nr_pages(folio) - folio_page_idx(folio, page);

		if (rest > nr)
			rest = nr;
		if (!bdio_folio_is_all_dirty(folio)) {
			folio_lock(folio);
			folio_mark_dirty(folio);
			folio_unlock(folio);
		}
		unpin_user_folio(folio, rest);
		nr -= rest;
		if (!nr)
			return;
		page += rest;
	}
}

/* In bytes: what is always mapped, so what can be allocated for whatever we keep. */
size_t bdio_memory(void)
{
	return (size_t)(totalram_pages() - totalhigh_pages()) << PAGE_SHIFT;
}

bool bdio_is_vmalloc(const void *addr)
{
	return is_vmalloc_addr(addr);
}
