#define _GNU_SOURCE
#include "process.h"

#include "buffer.h"
#include "poller.h"
#include "raw.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_SIZE = 32 << 10, LAUNCH_DESCRIPTORS = 4 };

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Made by the agent before the start; from then on the supervisor and the child read the first part and
 * write the atomics, the agent reads the atomics. Freed only when both are gone. */
struct process {
	char **argv;
	char **script_argv; /* /bin/sh, a place for the script's path, argv[1] and so on: borrowed strings */
	char **environment;
	char **candidates; /* where the program may be, in the order of PATH */
	char *directory;
	int descriptors[LAUNCH_DESCRIPTORS];
	char *terminal; /* its path, or NULL */
	atomic_int id, error, entering, status, ended;
	atomic_int foreground_signal; /* for the supervisor to pass on, or 0 */

	struct process *next;
	uint8_t *stack;
	pid_t supervisor; /* 0 when there is none (any more) */
	bool released;
};

static struct process *processes;
static int child_signal, supervisor_event;
static int signal_place, event_place;

/* ---- beside the agent: raw system calls only ---- */

/* execve answers ENOEXEC for a script without an interpreter line: the shell runs it, as execvp would. */
static long try_execute(struct process *process, const char *path)
{
	long error = raw(SYS_execve, (long)path, (long)process->argv, (long)process->environment, 0, 0);
	if (error != -ENOEXEC)
		return error;
	process->script_argv[1] = (char *)path;
	return raw(SYS_execve, (long)"/bin/sh", (long)process->script_argv, (long)process->environment, 0, 0);
}

static long execute(struct process *process)
{
	long worst = -ENOENT;
	for (char **path = process->candidates; *path; path++) {
		long error = try_execute(process, *path);
		if (error == -EACCES)
			worst = error;
		else if (error != -ENOENT && error != -ENOTDIR)
			return error;
	}
	return worst;
}

static long take_descriptors(const int *descriptors)
{
	for (int target = 0; target < LAUNCH_DESCRIPTORS; target++) {
		int source = descriptors[target];
		if (source < 0)
			continue;
		long result = source == target ? raw(SYS_fcntl, source, F_SETFD, 0, 0, 0)
					       : raw(SYS_dup3, source, target, 0, 0, 0);
		if (result < 0)
			return result;
	}
	return 0;
}

__attribute__((noinline, noreturn)) static void child_main(struct process *process)
{
	uint64_t no_signals = 0;
	int id = (int)raw(SYS_getpid, 0, 0, 0, 0, 0);
	raw(SYS_setpgid, 0, 0, 0, 0, 0);
	if (process->terminal)
		raw(SYS_ioctl, process->descriptors[0], TIOCSPGRP, (long)&id, 0, 0);
	atomic_store(&process->id, id);
	long error = take_descriptors(process->descriptors);
	if (error == 0) {
		error = raw(SYS_chdir, (long)process->directory, 0, 0, 0, 0);
		atomic_store(&process->entering, error < 0);
	}
	if (error == 0) {
		raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&no_signals, 0, sizeof no_signals, 0);
		error = execute(process);
	}
	atomic_store(&process->error, (int)-error);
	for (;;)
		raw(SYS_exit_group, 127, 0, 0, 0, 0);
}

__attribute__((noinline)) static long spawn(struct process *process)
{
	long id = raw_vfork();
	if (id == 0)
		child_main(process);
	return id;
}

static void note_start_failure(struct process *process, long error)
{
	atomic_store(&process->error, (int)-error);
	atomic_store(&process->ended, 1);
}

static void note_end(struct process *process, int status)
{
	atomic_store(&process->status, status);
	atomic_store(&process->ended, 1);
}

/* Closes all descriptors but the event and, for now, the child's: the supervisor must not keep a pipe of another
 * command open. The last descriptor is INT_MAX: gVisor takes it for signed and refuses ~0U. */
static void close_others(const struct process *process, bool with_childs)
{
	/* Not the largest unsigned number: gVisor takes that for a negative one and refuses the range. */
	const unsigned end = INT_MAX;
	unsigned first = 0;
	for (;;) {
		unsigned next = (unsigned)supervisor_event >= first ? (unsigned)supervisor_event : end;
		for (int i = 0; with_childs && i < LAUNCH_DESCRIPTORS; i++) {
			unsigned kept = (unsigned)process->descriptors[i];
			if (process->descriptors[i] >= 0 && kept >= first && kept < next)
				next = kept;
		}
		if (next > first)
			raw(SYS_close_range, first, next == end ? end : next - 1, 0, 0, 0);
		if (next == end)
			return;
		first = next + 1;
	}
}

/* The supervisor leads the session: only a member may ask a terminal which group is in its foreground. It opens the
 * terminal for that alone, or it would never hang up. */
static void take_terminal(const struct process *process)
{
	raw(SYS_setsid, 0, 0, 0, 0, 0);
	raw(SYS_ioctl, process->descriptors[0], TIOCSCTTY, 0, 0, 0);
}

static int foreground_group(const struct process *process)
{
	int group = 0;
	long terminal = raw(SYS_openat, AT_FDCWD, (long)process->terminal, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0, 0);
	if (terminal < 0)
		return 0;
	long result = raw(SYS_ioctl, terminal, TIOCGPGRP, (long)&group, 0, 0);
	raw(SYS_close, terminal, 0, 0, 0, 0);
	return result < 0 ? 0 : group;
}

static void signal_foreground(struct process *process)
{
	uint64_t one = 1;
	int number = atomic_load(&process->foreground_signal);
	int group = number == 0 ? 0 : foreground_group(process);
	if (group > 1)
		raw(SYS_kill, -group, number, 0, 0, 0);
	if (number == 0)
		return;
	atomic_compare_exchange_strong(&process->foreground_signal, &number, 0);
	raw(SYS_write, supervisor_event, (long)&one, sizeof one, 0, 0);
}

/* Waits for the next child; where there is a terminal, passes signals on meanwhile. */
static long wait_for_child(struct process *process, int *status)
{
	const uint64_t wanted = 1ULL << (SIGCHLD - 1) | 1ULL << (SIGUSR1 - 1);
	if (!process->terminal)
		return raw(SYS_wait4, -1, (long)status, 0, 0, 0);
	for (;;) {
		long id = raw(SYS_wait4, -1, (long)status, WNOHANG, 0, 0);
		if (id != 0)
			return id;
		raw(SYS_rt_sigtimedwait, (long)&wanted, 0, 0, sizeof wanted, 0);
		signal_foreground(process);
	}
}

/* Reaps until nothing is left to reap, then ends. The agent learns of the program's end from the supervisor's own
 * end when the program left nothing behind (one wake-up), else through the event. */
static int supervisor_main(void *argument)
{
	struct process *process = argument;
	uint64_t one = 1;
	raw(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	raw(SYS_prctl, PR_SET_NAME, (long)"mitos-exec", 0, 0, 0);
	close_others(process, true);
	if (process->terminal)
		take_terminal(process);
	long child = spawn(process);
	close_others(process, false);
	if (child < 0)
		note_start_failure(process, child);
	for (;;) {
		int status = 0;
		long id = atomic_load(&process->ended) ? raw(SYS_wait4, -1, (long)&status, WNOHANG, 0, 0)
						       : wait_for_child(process, &status);
		if (id == -ECHILD)
			break;
		if (id == child)
			note_end(process, status);
		if (id != 0)
			continue;
		raw(SYS_write, supervisor_event, (long)&one, sizeof one, 0, 0);
		while (wait_for_child(process, &status) != -ECHILD)
			;
		break;
	}
	raw(SYS_exit_group, 0, 0, 0, 0, 0);
	return 0;
}

/* ---- the agent's side ---- */

void process_setup(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL); /* a signal that is ignored here would be ignored in every command */
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	child_signal = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	supervisor_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (child_signal < 0 || supervisor_event < 0)
		exit(1);
}

static size_t count_strings(char **strings)
{
	size_t count = 0;
	while (strings[count])
		count++;
	return count;
}

static char **copy_strings(char **strings)
{
	size_t count = count_strings(strings);
	char **copy = must_allocate((count + 1) * sizeof *copy);
	for (size_t i = 0; i < count; i++)
		copy[i] = must_copy(strings[i], strlen(strings[i]));
	return copy;
}

static char **make_script_argv(char **argv)
{
	size_t count = count_strings(argv);
	char **script_argv = must_allocate((count + 2) * sizeof *script_argv);
	script_argv[0] = (char *)"/bin/sh";
	memcpy(script_argv + 2, argv + 1, count * sizeof *argv);
	return script_argv;
}

static const char *search_path(char **environment)
{
	const char *path = DEFAULT_PATH;
	for (; *environment; environment++)
		if (strncmp(*environment, "PATH=", 5) == 0)
			path = *environment + 5;
	return path;
}

static char *join_path(const char *directory, size_t length, const char *name)
{
	char *path = must_allocate(length + strlen(name) + 2);
	memcpy(path, directory, length);
	if (length > 0)
		path[length++] = '/';
	strcpy(path + length, name);
	return path;
}

static char **find_candidates(const char *name, char **environment)
{
	const char *path = search_path(environment);
	size_t count = 1;
	for (const char *at = path; *at; at++)
		count += *at == ':';
	char **candidates = must_allocate((count + 1) * sizeof *candidates);
	if (*name == 0)
		return candidates;
	if (strchr(name, '/')) {
		candidates[0] = must_copy(name, strlen(name));
		return candidates;
	}
	for (size_t i = 0; i < count; i++) {
		size_t length = strcspn(path, ":");
		candidates[i] = join_path(path, length, name);
		path += length + 1;
	}
	return candidates;
}

static void free_strings(char **strings)
{
	for (char **string = strings; *string; string++)
		free(*string);
	free(strings);
}

static void free_process(struct process *process)
{
	struct process **link = &processes;
	while (*link != process)
		link = &(*link)->next;
	*link = process->next;
	free_strings(process->argv);
	free_strings(process->environment);
	free_strings(process->candidates);
	free(process->script_argv);
	free(process->directory);
	free(process->terminal);
	free(process->stack);
	free(process);
}

static void start_supervisor(struct process *process)
{
	process->stack = must_allocate(STACK_SIZE);
	int id = clone(supervisor_main, process->stack + STACK_SIZE, CLONE_VM | SIGCHLD, process);
	if (id > 0)
		process->supervisor = id;
	else
		note_start_failure(process, -errno);
}

static void close_descriptors(const struct process *process)
{
	for (int i = 0; i < LAUNCH_DESCRIPTORS; i++) {
		int seen = 0;
		while (process->descriptors[seen] != process->descriptors[i])
			seen++;
		if (seen == i && process->descriptors[i] >= 0)
			close(process->descriptors[i]);
	}
}

struct process *process_start(const struct launch *launch)
{
	struct process *process = must_allocate(sizeof *process);
	process->argv = copy_strings(launch->argv);
	process->script_argv = make_script_argv(process->argv);
	process->environment = copy_strings(launch->environment);
	process->candidates = find_candidates(launch->argv[0], launch->environment);
	process->directory = must_copy(launch->directory, strlen(launch->directory));
	if (launch->terminal)
		process->terminal = must_copy(launch->terminal, strlen(launch->terminal));
	memcpy(process->descriptors, (int[]){launch->input, launch->output, launch->error, launch->extra},
	       sizeof process->descriptors);
	process->next = processes;
	processes = process;
	if (launch->supervised) {
		start_supervisor(process);
	} else {
		long id = spawn(process);
		if (id < 0)
			note_start_failure(process, id);
	}
	close_descriptors(process);
	return process;
}

void process_release(struct process *process)
{
	process->released = true;
	if (process->supervisor)
		kill(process->supervisor, SIGKILL);
	if (process->released && process_gone(process))
		free_process(process);
}

pid_t process_id(const struct process *process)
{
	return atomic_load(&process->id);
}

bool process_ended(const struct process *process)
{
	return atomic_load(&process->ended);
}

bool process_gone(const struct process *process)
{
	return process_ended(process) && process->supervisor == 0;
}

int process_start_error(const struct process *process, bool *entering)
{
	*entering = atomic_load(&process->entering);
	return atomic_load(&process->error);
}

int process_status(const struct process *process)
{
	return atomic_load(&process->status);
}

bool process_is_supervisor(pid_t id)
{
	for (const struct process *process = processes; process; process = process->next)
		if (process->supervisor == id)
			return true;
	return false;
}

void process_signal_foreground(struct process *process, int number)
{
	atomic_store(&process->foreground_signal, number);
	if (process->supervisor)
		kill(process->supervisor, SIGUSR1);
}

bool process_is_signalling(const struct process *process)
{
	return process->supervisor && atomic_load(&process->foreground_signal);
}

bool process_kill_tree(struct process *process)
{
	if (process->supervisor) {
		if (process_id(process) == 0 && !process_ended(process))
			return false;
		return tree_kill(process->supervisor, false);
	}
	if (process_ended(process))
		return true;
	kill(-process_id(process), SIGKILL);
	tree_kill(process_id(process), true);
	return false;
}

static void note_reaped(struct process *process, pid_t id, int status)
{
	if (process->supervisor == id) {
		process->supervisor = 0;
		if (process_id(process) == 0 && !process_ended(process))
			note_end(process, status);
	} else if (process_id(process) == id && !process_ended(process)) {
		note_end(process, status);
	}
}

void process_prepare(void)
{
	signal_place = poller_add(child_signal, POLLIN);
	event_place = poller_add(supervisor_event, POLLIN);
}

void process_reap(void)
{
	struct signalfd_siginfo signals;
	uint64_t events;
	if (poller_ready(event_place) && read(supervisor_event, &events, sizeof events) < 0)
		return;
	if (!poller_ready(signal_place))
		return;
	while (read(child_signal, &signals, sizeof signals) > 0)
		;
	int status;
	pid_t id;
	while ((id = waitpid(-1, &status, WNOHANG)) > 0) {
		for (struct process *process = processes, *next; process; process = next) {
			next = process->next;
			note_reaped(process, id, status);
			if (process->released && process_gone(process))
				free_process(process);
		}
	}
}
