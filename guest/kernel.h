/* The processes that run code cells: one per language, started by its first cell. kernels/ holds the programs,
 * section 5 of spec/guest-link.md is what they speak. cell.c is the operation, capture.c their plain output. */
#ifndef MITOS_KERNEL_H
#define MITOS_KERNEL_H

#include "capture.h"
#include "cell.h"
#include "message.h"
#include "process.h"
#include "stream.h"

enum { RESEED_ENTROPY_SIZE = 32, GENERATION_SIZE = 16 };

struct kernel {
	struct kernel *next;
	char *language;
	struct process *process; /* NULL when it does not run */
	int socket, read_place, write_place;
	struct buffer outgoing;
	struct capture capture;
	struct cell *cells; /* complete ones; the first runs when `running` */
	bool running, ready;
	bool interrupts_group; /* a SIGINT is for the whole group, not for the kernel alone */
	bool lost;             /* its state is lost and nobody was told yet */
	bool confirm;          /* a RESEEDED is waited for */
	bool over;             /* nothing more will come out of the socket */
	int64_t ready_by;
	struct buffer held; /* received, and waiting for what was captured before it */
	struct message message;
};

/* The kernel of the language, or NULL when the sandbox has none. */
struct kernel *kernel_find(const char *language);
/* Interrupts the running cell, and kills the kernel soon after if that does not end it. */
void kernel_interrupt(struct kernel *kernel);

/* Tells every live kernel its new entropy, the changed variables (the ENV fields) and whether this is a fork. */
void kernel_identify(const uint8_t *entropy, const uint8_t *generation, struct fields fields);
/* True once every kernel that was idle at kernel_identify has confirmed. */
bool kernel_all_confirmed(void);

/* The event loop's part. */
void kernel_prepare(void);
void kernel_pump(void);

#endif
