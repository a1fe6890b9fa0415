/* SPDX-License-Identifier: MIT */
/*
 * Switch between stacks. The address sanitizer must know on which stack a
 * thread runs, and valgrind which memory is a stack; LeakSanitizer looks for
 * pointers only in roots, so stacks are registered as such.
 */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hal/sim/gm_sim_ctx.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif

#if WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(start, end) 0u
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#define STACK_BYTES ((size_t)256 << 10)

#if !GM_SIM_CTX_UCONTEXT

/* In assembler below: push the preserved registers, *save = sp, sp = load, pop them, return. */
void gm_sim_ctx_jump(void **save, void *load);
/* In assembler below: the first return of a new context lands here; calls its function. */
void gm_sim_ctx_entry(void);

#if defined(__x86_64__)
__asm__(".text\n"
	".p2align 4\n"
	".globl gm_sim_ctx_jump\n"
	".hidden gm_sim_ctx_jump\n"
	".type gm_sim_ctx_jump, @function\n"
	"gm_sim_ctx_jump:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size gm_sim_ctx_jump, .-gm_sim_ctx_jump\n"
	".p2align 4\n"
	".globl gm_sim_ctx_entry\n"
	".hidden gm_sim_ctx_entry\n"
	".type gm_sim_ctx_entry, @function\n"
	"gm_sim_ctx_entry:\n"
	"	movq %r12, %rdi\n"
	"	call *%r13\n"
	"	ud2\n"
	".size gm_sim_ctx_entry, .-gm_sim_ctx_entry\n");

enum { FRAME_WORDS = 7, FRAME_FN = 2, FRAME_ARG = 3, FRAME_RETURN = 6 };
#else
__asm__(".text\n"
	".p2align 4\n"
	".globl gm_sim_ctx_jump\n"
	".hidden gm_sim_ctx_jump\n"
	".type gm_sim_ctx_jump, %function\n"
	"gm_sim_ctx_jump:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size gm_sim_ctx_jump, .-gm_sim_ctx_jump\n"
	".p2align 4\n"
	".globl gm_sim_ctx_entry\n"
	".hidden gm_sim_ctx_entry\n"
	".type gm_sim_ctx_entry, %function\n"
	"gm_sim_ctx_entry:\n"
	"	mov x0, x19\n"
	"	blr x20\n"
	"	brk #0\n"
	".size gm_sim_ctx_entry, .-gm_sim_ctx_entry\n");

enum { FRAME_WORDS = 20, FRAME_FN = 1, FRAME_ARG = 0, FRAME_RETURN = 11 };
#endif

/* A frame as gm_sim_ctx_jump() leaves it, that returns into gm_sim_ctx_entry(). */
static void make_frame(struct gm_sim_ctx *ctx, struct gm_sim_stack *stack, void (*fn)(void *arg), void *arg)
{
	uintptr_t *frame = (uintptr_t *)(void *)(stack->base + stack->bytes) - 2 - FRAME_WORDS;

	for (unsigned i = 0; i < FRAME_WORDS + 2u; i++)
		frame[i] = 0; /* the zeros at the end stop whoever walks the stack */
	frame[FRAME_FN] = (uintptr_t)fn;
	frame[FRAME_ARG] = (uintptr_t)arg;
	frame[FRAME_RETURN] = (uintptr_t)gm_sim_ctx_entry;
	ctx->sp = frame;
}

static void jump(struct gm_sim_ctx *from, struct gm_sim_ctx *to)
{
	gm_sim_ctx_jump(&from->sp, to->sp);
}

#else /* ucontext: its entry takes ints, so the pointers travel in halves */

static void *join_halves(unsigned hi, unsigned lo)
{
	return (void *)(uintptr_t)((uint64_t)hi << 32 | lo);
}

static void enter(unsigned fn_hi, unsigned fn_lo, unsigned arg_hi, unsigned arg_lo)
{
	void (*fn)(void *arg) = (void (*)(void *))join_halves(fn_hi, fn_lo);

	fn(join_halves(arg_hi, arg_lo));
}

static void make_frame(struct gm_sim_ctx *ctx, struct gm_sim_stack *stack, void (*fn)(void *arg), void *arg)
{
	uint64_t f = (uintptr_t)fn;
	uint64_t a = (uintptr_t)arg;

	getcontext(&ctx->uc);
	ctx->uc.uc_stack.ss_sp = stack->base;
	ctx->uc.uc_stack.ss_size = stack->bytes;
	ctx->uc.uc_link = NULL;
	makecontext(&ctx->uc, (void (*)(void))enter, 4, (unsigned)(f >> 32), (unsigned)f, (unsigned)(a >> 32),
		    (unsigned)a);
}

static void jump(struct gm_sim_ctx *from, struct gm_sim_ctx *to)
{
	swapcontext(&from->uc, &to->uc);
}

#endif

struct gm_sim_stack *gm_sim_stack_create(void)
{
	size_t guard = (size_t)sysconf(_SC_PAGESIZE);
	struct gm_sim_stack *stack = calloc(1, sizeof(*stack));
	char *map;

	if (!stack)
		return NULL;
	map = mmap(NULL, guard + STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		   0);
	if (map == MAP_FAILED)
		goto err_free;
	if (mprotect(map, guard, PROT_NONE))
		goto err_unmap;
	stack->base = map + guard;
	stack->bytes = STACK_BYTES;
	stack->map_bytes = guard + STACK_BYTES;
	stack->valgrind_id = VALGRIND_STACK_REGISTER(stack->base, stack->base + stack->bytes);
#if WITH_ASAN
	__lsan_register_root_region(stack->base, stack->bytes);
#endif
	return stack;

err_unmap:
	munmap(map, guard + STACK_BYTES);
err_free:
	free(stack);
	return NULL;
}

void gm_sim_stack_destroy(struct gm_sim_stack *stack)
{
	VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
#if WITH_ASAN
	__lsan_unregister_root_region(stack->base, stack->bytes);
	__asan_unpoison_memory_region(stack->base, stack->bytes);
#endif
	munmap(stack->base + stack->bytes - stack->map_bytes, stack->map_bytes);
	free(stack);
}

void gm_sim_ctx_init(struct gm_sim_ctx *ctx, struct gm_sim_stack *stack, void (*fn)(void *arg), void *arg)
{
#if WITH_ASAN
	/* Frames that were never left keep their red zones. */
	__asan_unpoison_memory_region(stack->base, stack->bytes);
#endif
	ctx->bottom = stack->base;
	ctx->bytes = stack->bytes;
	ctx->fake = NULL;
	make_frame(ctx, stack, fn, arg);
}

void gm_sim_ctx_switch(struct gm_sim_ctx *from, struct gm_sim_ctx *to, bool leave)
{
#if WITH_ASAN
	__sanitizer_start_switch_fiber(leave ? NULL : &from->fake, to->bottom, to->bytes);
#else
	(void)leave;
#endif
	jump(from, to);
#if WITH_ASAN
	__sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
}

void gm_sim_ctx_started(struct gm_sim_ctx *from)
{
#if WITH_ASAN
	/* The only way to learn the bounds of the stack the program came with. */
	__sanitizer_finish_switch_fiber(NULL, &from->bottom, &from->bytes);
#else
	(void)from;
#endif
}
