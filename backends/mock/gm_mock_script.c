/* SPDX-License-Identifier: MIT */
/* Scripts, losses, traces and expectations as a user of the library calls them: on devices, every argument checked. */
#include "config.h"

#include "backends/mock/gm_mock_internal.h"

/* A result; of INVAL also why. */
static gm_ret_t because(gm_ret_t ret, const char *function, const char *why)
{
	return ret == GM_RET_INVAL ? gm_mock_refuse(function, why) : ret;
}

gm_ret_t gm_mock_fail(struct gm_dev *dev, enum gm_mock_op op, uint64_t nth, uint64_t count)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	return because(gm_mock_dev_fail(m, op, nth, count), __func__, "op is none of enum gm_mock_op, or cannot fail");
}

gm_ret_t gm_mock_rule_add(struct gm_dev *dev, const struct gm_mock_rule *rule)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	if (!rule)
		return gm_mock_refuse(__func__, "rule must not be NULL");
	return because(gm_mock_dev_rule_add(m, rule), __func__, "the rule makes no sense: see struct gm_mock_rule");
}

gm_ret_t gm_mock_rule_clear(struct gm_dev *dev)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	gm_mock_dev_rule_clear(m);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_lose(struct gm_dev *dev)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	gm_mock_dev_lose(m);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_bad_page(struct gm_dev *dev, uint64_t pa)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	return because(gm_mock_dev_bad_page(m, pa), __func__, "pa is no address of device memory");
}

gm_ret_t gm_mock_trace(struct gm_dev *dev, gm_mock_trace_fn fn, void *arg)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	gm_mock_dev_trace(m, fn, arg);
	return GM_RET_SUCCESS;
}

gm_ret_t gm_mock_expect(struct gm_dev *dev, const char *text)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	if (!m)
		return GM_RET_INVAL;
	if (!text)
		return gm_mock_refuse(__func__, "text must not be NULL");
	return because(gm_mock_dev_expect(m, text), __func__, "the text is not understood: the log says where");
}

gm_ret_t gm_mock_expect_end(struct gm_dev *dev, char *why, size_t bytes)
{
	struct gm_mock *m = gm_mock_of(__func__, dev);

	return m ? gm_mock_dev_expect_end(m, why, bytes) : GM_RET_INVAL;
}
