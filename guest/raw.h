/* System calls that touch nothing of libc, not even errno: for processes that share the agent's memory. */
#ifndef MITOS_RAW_H
#define MITOS_RAW_H

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

/* Returns the kernel's answer: negative is an errno. */
static inline long raw(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
			 : "memory");
	return x0;
#else
#error "the agent is built for x86_64 and aarch64"
#endif
}

/* vfork: the child runs on the caller's stack while the caller stands still. The child must not return from the
 * calling function, only call functions that end in execve or exit. */
__attribute__((always_inline)) static inline long raw_vfork(void)
{
	return raw(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
}

#endif
