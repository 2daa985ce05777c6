/* The agent: PID 1 of a sandbox. One thread, one loop; spec/guest-link.md is what it speaks on its standard input
 * and output.
 *
 *     stream.c   the link: frames in and out, credit, the table of streams      (link.c is its codec)
 *     exec.c     EXEC            exec_request.c  its fields
 *     attach.c   ATTACH COMMANDS END_COMMAND     command.c, ring.c  what runs, and its output
 *                                process.c  starting and reaping, tree.c killing with all descendants
 *                                terminal.c pseudo-terminals, input.c what is typed
 *     file.c     READ_FILE WRITE_FILE MKDIR      remove.c  REMOVE
 *                                path.c     parts of paths
 *     directory.c LIST STAT
 *     cell.c     RUN_CODE        kernel.c   the processes that run it: message.c what they say, capture.c print
 *     identity.c IDENTIFY        hook.c     what runs after a fork, environment.c  the variables all share
 *     watch.c    WATCH
 *     vitals.c   PROCESSES SIGNAL VITALS                    table.c  what /proc says
 *     relay.c    DIAL ACCEPT     listener.c where ACCEPT takes connections from
 *
 * Nothing in the loop waits for a slow stream: descriptors do not block, and files move one portion a turn. */
#define _GNU_SOURCE
#include "attach.h"
#include "command.h"
#include "directory.h"
#include "exec.h"
#include "file.h"
#include "identity.h"
#include "kernel.h"
#include "listener.h"
#include "poller.h"
#include "process.h"
#include "relay.h"
#include "remove.h"
#include "stream.h"
#include "vitals.h"
#include "watch.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MITOS_BUILD
#define MITOS_BUILD "unknown"
#endif

enum { OPEN_FILE_LIMIT = 65536 };

const struct operation *const operations[] = {
	[OPERATION_IDENTIFY] = &identify_operation,
	[OPERATION_EXEC] = &exec_operation,
	[OPERATION_READ_FILE] = &read_file_operation,
	[OPERATION_WRITE_FILE] = &write_file_operation,
	[OPERATION_LIST] = &list_operation,
	[OPERATION_STAT] = &stat_operation,
	[OPERATION_MKDIR] = &mkdir_operation,
	[OPERATION_REMOVE] = &remove_operation,
	[OPERATION_RUN_CODE] = &run_code_operation,
	[OPERATION_PROCESSES] = &processes_operation,
	[OPERATION_SIGNAL] = &signal_operation,
	[OPERATION_VITALS] = &vitals_operation,
	[OPERATION_WATCH] = &watch_operation,
	[OPERATION_DIAL] = &dial_operation,
	[OPERATION_ACCEPT] = &accept_operation,
	[OPERATION_ATTACH] = &attach_operation,
	[OPERATION_COMMANDS] = &commands_operation,
	[OPERATION_END_COMMAND] = &end_command_operation,
};
const size_t operation_count = sizeof operations / sizeof *operations;

/* Descriptors 0 to 2 must be taken, or the first pipes would take their places. */
static void fill_standard_descriptors(void)
{
	int null;
	do
		null = open("/dev/null", O_RDWR);
	while (null >= 0 && null <= STDERR_FILENO);
	if (null >= 0)
		close(null);
}

/* What children inherit: many open files, and no capability that only PID 1 needs (sethostname). */
static void limit_children(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max < OPEN_FILE_LIMIT ? limit.rlim_max : OPEN_FILE_LIMIT;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0);
	umask(022);
}

static void set_up(void)
{
	fill_standard_descriptors();
	process_setup();
	limit_children();
	mkdir("/workspace", 0755);
	listener_start();
	fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
	fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
	stream_start(MITOS_BUILD);
}

static void prepare_operations(void)
{
	command_prepare();
	file_prepare();
	directory_prepare();
	remove_prepare();
	kernel_prepare();
	identity_prepare();
	vitals_prepare();
	watch_prepare();
	relay_prepare();
}

static void pump_operations(void)
{
	command_pump();
	file_pump();
	directory_pump();
	remove_pump();
	kernel_pump();
	identity_pump();
	vitals_pump();
	watch_pump();
	relay_pump();
}

int main(void)
{
	set_up();
	for (;;) {
		bool active = !stream_frozen();
		poller_reset();
		stream_prepare();
		process_prepare();
		if (active)
			prepare_operations();
		poller_wait();
		process_reap();
		stream_receive();
		if (active && !stream_frozen())
			pump_operations();
		stream_flush();
	}
}
