/* Starting processes and seeing them end.
 *
 * A supervised process runs under a tiny supervisor that is its parent and the reaper of everything it leaves
 * behind: what calls setsid or double-forks stays the supervisor's descendant, so the whole tree can be found.
 *
 * The supervisor is a process that shares the agent's memory (CLONE_VM), not a forked copy. In gVisor on systrap,
 * p50 from start to exit of /bin/true: without a supervisor 3.3-6.3 ms, with this one 3.7-4.6 ms, with a forked one
 * 11-13 ms; PR_SET_CHILD_SUBREAPER works there. The price: supervisor and child may only use system calls that
 * leave libc's state alone, since the agent runs on beside them (process.c). */
#ifndef MITOS_PROCESS_H
#define MITOS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

struct launch {
	char **argv;        /* ends with NULL */
	char **environment; /* ends with NULL */
	const char *directory;
	/* The child's 0, 1, 2 and 3 (or -1); may repeat. They are closed once the child has them. */
	int input, output, error, extra;
	bool supervised;
	const char *terminal; /* the path of `input`, when that is a terminal for a session of its own; or NULL */
};

struct process;

void process_setup(void);
/* Starts the program. Copies the strings in `launch` and takes its descriptors. */
struct process *process_start(const struct launch *launch);
/* Gives up a process that has ended; what it left behind lives on under PID 1. */
void process_release(struct process *process);

/* The id, or 0 while it is being started. */
pid_t process_id(const struct process *process);
/* True once the program has ended or could not be started. */
bool process_ended(const struct process *process);
/* True once the program has ended and left nothing behind. */
bool process_gone(const struct process *process);
/* The errno of a start that failed, else 0; `*entering` says that the directory was to blame. */
int process_start_error(const struct process *process, bool *entering);
/* The wait status of a program that ended. */
int process_status(const struct process *process);
/* Signals the foreground group of a supervised process's terminal, a moment later. */
void process_signal_foreground(struct process *process, int number);
/* True until that has been done. */
bool process_is_signalling(const struct process *process);
/* Kills the process and all its descendants; true when none is left. Call again until then. */
bool process_kill_tree(struct process *process);

/* True for a supervisor of ours: not for others to signal. */
bool process_is_supervisor(pid_t id);

/* The event loop's part: waits for ended processes, and takes note of them. */
void process_prepare(void);
void process_reap(void);

#endif
