#define _GNU_SOURCE
#include "hook.h"

#include "environment.h"
#include "poller.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOOK_DIRECTORY "/etc/mitos/after-fork.d/"

enum { HOOK_LIMIT = 64, NAME_LIMIT = 255, SAID_LIMIT = 300, PORTIONS_OF_A_PIPE = 16 };

/* For all of them together: a fork must answer within the server's handshake deadline, 15 s. */
static const int64_t TIME_LIMIT_NS = (int64_t)8 * 1000000000;
static const int64_t RETRY_NS = 5 * 1000 * 1000;

static struct hooks {
	char *names[HOOK_LIMIT];
	size_t count, next;
	char path[sizeof HOOK_DIRECTORY + NAME_LIMIT];
	struct process *process; /* NULL between two of them */
	int output, place;
	char said[SAID_LIMIT + 1]; /* the last of what it wrote */
	size_t said_size;
	int64_t end_by;
	bool late;
	enum hook_state state;
	char failure[SAID_LIMIT + 100];
} hooks = {.output = -1, .place = NOT_POLLED, .state = HOOKS_DONE};

/* ---- finding them ---- */

static bool is_hook(int directory, const char *name)
{
	struct stat status;
	return name[0] != '.' && strlen(name) <= NAME_LIMIT && name[strlen(name) - 1] != '~' &&
	       fstatat(directory, name, &status, 0) == 0 && S_ISREG(status.st_mode) && (status.st_mode & S_IXUSR);
}

static int compare_names(const void *one, const void *other)
{
	return strcmp(*(char *const *)one, *(char *const *)other);
}

static void fail(const char *reason)
{
	snprintf(hooks.failure, sizeof hooks.failure, "%s%s%s", reason, hooks.said_size > 0 ? ": " : "", hooks.said);
	hooks.state = HOOKS_FAILED;
}

static void find_hooks(void)
{
	DIR *directory = opendir(HOOK_DIRECTORY);
	if (!directory)
		return;
	for (struct dirent *entry; (entry = readdir(directory));) {
		if (!is_hook(dirfd(directory), entry->d_name))
			continue;
		if (hooks.count == HOOK_LIMIT) {
			fail("there are more than 64 executables");
			break;
		}
		hooks.names[hooks.count++] = must_copy(entry->d_name, strlen(entry->d_name));
	}
	closedir(directory);
	qsort(hooks.names, hooks.count, sizeof *hooks.names, compare_names);
}

/* ---- running one ---- */

static void close_output(void)
{
	if (hooks.output >= 0)
		close(hooks.output);
	hooks.output = -1;
}

static void end_process(void)
{
	if (hooks.process)
		process_release(hooks.process);
	hooks.process = NULL;
	close_output();
}

static void start_next(void)
{
	int ends[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	snprintf(hooks.path, sizeof hooks.path, HOOK_DIRECTORY "%s", hooks.names[hooks.next++]);
	hooks.said_size = hooks.said[0] = 0;
	if (null < 0 || pipe2(ends, O_CLOEXEC) < 0) {
		fail(strerror(errno));
		if (null >= 0)
			close(null);
		return;
	}
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	hooks.output = ends[0];
	char **environment = environment_make((struct fields){0}, NULL);
	struct launch launch = {
		.argv = (char *[]){hooks.path, NULL},
		.environment = environment,
		.directory = "/workspace",
		.input = null,
		.output = ends[1],
		.error = ends[1],
		.extra = -1,
		.supervised = true,
	};
	hooks.process = process_start(&launch);
	environment_free(environment);
}

/* Keeps the last bytes, as printable ASCII. */
static void keep_said(const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (hooks.said_size == SAID_LIMIT)
			memmove(hooks.said, hooks.said + 1, --hooks.said_size);
		char byte = data[i];
		hooks.said[hooks.said_size++] = byte >= ' ' && byte <= '~' ? byte : byte == '\n' ? ' ' : '?';
	}
	hooks.said[hooks.said_size] = 0;
}

/* Returns false when there is nothing to read now. */
static bool read_output(void)
{
	char data[4096];
	if (hooks.output < 0)
		return false;
	ssize_t got = read(hooks.output, data, sizeof data);
	if (got > 0)
		keep_said(data, (size_t)got);
	else if (got == 0 || errno != EAGAIN)
		close_output();
	return got > 0;
}

static void on_end(void)
{
	bool entering;
	char reason[64];
	int error = process_start_error(hooks.process, &entering), status = process_status(hooks.process);
	for (int portion = 0; portion < PORTIONS_OF_A_PIPE && read_output(); portion++)
		;
	end_process();
	if (hooks.late)
		fail("it did not end within 8 s");
	else if (error)
		fail(strerror(error));
	else if (WIFSIGNALED(status)) {
		snprintf(reason, sizeof reason, "it was ended by signal %d", WTERMSIG(status));
		fail(reason);
	} else if (WEXITSTATUS(status) != 0) {
		snprintf(reason, sizeof reason, "it ended with exit code %d", WEXITSTATUS(status));
		fail(reason);
	}
}

/* ---- the run ---- */

static void forget_names(void)
{
	while (hooks.count > 0)
		free(hooks.names[--hooks.count]);
	hooks.next = 0;
}

void hook_start(void)
{
	end_process();
	forget_names();
	hooks.state = HOOKS_RUNNING;
	hooks.late = false;
	hooks.said_size = hooks.said[0] = 0;
	strcpy(hooks.path, HOOK_DIRECTORY);
	hooks.end_by = clock_ns() + TIME_LIMIT_NS;
	find_hooks();
}

enum hook_state hook_state(void)
{
	return hooks.state;
}

const char *hook_path(void)
{
	return hooks.path;
}

const char *hook_failure(void)
{
	return hooks.failure;
}

void hook_prepare(void)
{
	hooks.place = NOT_POLLED;
	if (hooks.state != HOOKS_RUNNING)
		return;
	if (!hooks.process || process_ended(hooks.process))
		poller_wake_at(0);
	else
		poller_wake_at(hooks.late ? clock_ns() + RETRY_NS : hooks.end_by);
	if (hooks.output >= 0)
		hooks.place = poller_add(hooks.output, POLLIN);
}

void hook_pump(void)
{
	if (hooks.state != HOOKS_RUNNING)
		return;
	if (poller_ready(hooks.place))
		read_output();
	if (hooks.process && !process_ended(hooks.process) && clock_ns() >= hooks.end_by) {
		hooks.late = true;
		process_kill_tree(hooks.process);
	}
	if (hooks.process && process_ended(hooks.process))
		on_end();
	if (hooks.state != HOOKS_RUNNING || hooks.process)
		return;
	if (hooks.next < hooks.count) {
		start_next();
		return;
	}
	hooks.state = HOOKS_DONE;
	forget_names();
}
