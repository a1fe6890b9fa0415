/* SPDX-License-Identifier: MIT */
/* Scripts, losses, traces and expectations as a user of the library calls them: on devices, every argument checked. */
#include "config.h"

#include <gmem/dev.h>

#include "backends/mock/gm_mock_internal.h"

gm_ret_t gm_mock_fail(struct gm_dev *dev, enum gm_mock_op op, uint64_t nth, uint64_t count)
{
	struct gm_mock *m = gm_mock_of(dev);

	return m ? gm_mock_dev_fail(m, op, nth, count) : GM_RET_INVAL;
}

gm_ret_t gm_mock_rule_add(struct gm_dev *dev, const struct gm_mock_rule *rule)
{
	struct gm_mock *m = gm_mock_of(dev);

	return m && rule ? gm_mock_dev_rule_add(m, rule) : GM_RET_INVAL;
}

gm_ret_t gm_mock_rule_clear(struct gm_dev *dev)
{
	struct gm_mock *m = gm_mock_of(dev);

	if (!m)
		return GM_RET_INVAL;
	gm_mock_dev_rule_clear(m);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_lose(struct gm_dev *dev)
{
	struct gm_mock *m = gm_mock_of(dev);

	if (!m)
		return GM_RET_INVAL;
	gm_mock_dev_lose(m);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_bad_page(struct gm_dev *dev, uint64_t pa)
{
	struct gm_mock *m = gm_mock_of(dev);

	return m ? gm_mock_dev_bad_page(m, pa) : GM_RET_INVAL;
}

gm_ret_t gm_mock_trace(struct gm_dev *dev, gm_mock_trace_fn fn, void *arg)
{
	struct gm_mock *m = gm_mock_of(dev);

	if (!m)
		return GM_RET_INVAL;
	gm_mock_dev_trace(m, fn, arg);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_expect(struct gm_dev *dev, const char *text)
{
	struct gm_mock *m = gm_mock_of(dev);

	return m && text ? gm_mock_dev_expect(m, text) : GM_RET_INVAL;
}

gm_ret_t gm_mock_expect_end(struct gm_dev *dev, char *why, size_t bytes)
{
	struct gm_mock *m = gm_mock_of(dev);

	return m ? gm_mock_dev_expect_end(m, why, bytes) : GM_RET_INVAL;
}
