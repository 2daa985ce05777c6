#define _GNU_SOURCE
#include "exec.h"

#include "environment.h"
#include "poller.h"
#include "process.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUTS = 2, END_OF_TERMINAL_INPUT = 0x04 };

/* How long input may wait for a signal that was typed before it. */
static const int64_t HOLD_NS = 1000 * 1000 * 1000;

/* How often a tree that is being killed, or a process that is not started yet, is looked at again. */
static const int64_t RETRY_NS = 5 * 1000 * 1000;

struct command {
	struct command *next;
	struct stream *stream; /* NULL once forgotten: the output is then dropped */
	struct process *process;
	bool terminal;
	char *name, *directory; /* for messages */

	int input, input_place;
	bool input_ended;
	int64_t held_until_ns; /* the input waits until then, or until a typed signal has been sent */
	size_t line_length;    /* typed into the terminal and not ended yet */
	struct buffer pending; /* at most the stream's credit */
	int outputs[OUTPUTS], output_places[OUTPUTS];

	int64_t started_ns, deadline_ns;
	int signal;    /* to be sent once the process is started, or 0 */
	bool killing;  /* the whole tree goes, for one of the next two reasons */
	bool timed_out, canceled;
	bool killed;   /* nothing is left of the tree: what is in the pipes now is all there is */
};

static struct command *commands;

static void close_descriptor(int *descriptor)
{
	if (*descriptor >= 0)
		close(*descriptor);
	*descriptor = -1;
}

/* ---- the request ---- */

struct request {
	char **argv;
	char **environment;
	char *directory, *terminal;
	uint64_t timeout_ms, has_input, cols, rows;
};

static bool read_arguments(struct fields fields, struct request *request)
{
	struct field field;
	size_t count = 0;
	request->argv = must_allocate(sizeof *request->argv);
	while (fields_next(&fields, &field) > 0) {
		if (field.tag != TAG_ARG)
			continue;
		char *argument = field_copy_text(&field);
		if (!argument)
			return false;
		request->argv = realloc(request->argv, (count + 2) * sizeof *request->argv);
		if (!request->argv)
			exit(1);
		request->argv[count++] = argument;
		request->argv[count] = NULL;
	}
	return count > 0;
}

static bool read_text(struct fields fields, enum tag tag, char **text)
{
	struct field field;
	if (!fields_find(fields, tag, &field))
		return true;
	*text = field_copy_text(&field);
	return *text != NULL;
}

static const char *read_request(struct fields fields, struct request *request)
{
	if (!read_arguments(fields, request))
		return "there is no argument, or one holds a NUL byte";
	if (!read_text(fields, TAG_CWD, &request->directory))
		return "the directory holds a NUL byte";
	if (!read_text(fields, TAG_TERM, &request->terminal))
		return "the terminal's name holds a NUL byte";
	if (!environment_valid(fields))
		return "a variable is not NAME=value, or holds a NUL byte";
	if (!fields_uint(fields, TAG_TIMEOUT, 0, &request->timeout_ms) ||
	    !fields_uint(fields, TAG_STDIN, 0, &request->has_input) ||
	    !fields_uint(fields, TAG_COLS, 80, &request->cols) ||
	    !fields_uint(fields, TAG_ROWS, 24, &request->rows))
		return "an integer field is not 8 bytes long";
	if (request->terminal && !request->terminal[0]) {
		free(request->terminal);
		request->terminal = must_copy("xterm-256color", 14);
	}
	request->environment = environment_make(fields, request->terminal);
	return NULL;
}

static void free_request(struct request *request)
{
	if (request->argv)
		environment_free(request->argv);
	if (request->environment)
		environment_free(request->environment);
	free(request->directory);
	free(request->terminal);
}

/* "" and relative directories are meant beneath /workspace. */
static char *resolve_directory(const char *directory)
{
	if (directory && directory[0] == '/')
		return must_copy(directory, strlen(directory));
	char *resolved = must_allocate(strlen("/workspace/") + (directory ? strlen(directory) : 0) + 1);
	strcpy(resolved, "/workspace");
	if (directory && directory[0]) {
		strcat(resolved, "/");
		strcat(resolved, directory);
	}
	return resolved;
}

/* ---- the child's descriptors ---- */

/* Makes a pipe whose `ours` end does not block. */
static bool make_pipe(int *ours, int *theirs, bool we_read)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	*ours = ends[we_read ? 0 : 1];
	*theirs = ends[we_read ? 1 : 0];
	fcntl(*ours, F_SETFL, O_NONBLOCK);
	return true;
}

static bool open_pipes(struct command *command, struct launch *launch, bool has_input)
{
	if (has_input ? !make_pipe(&command->input, &launch->input, false)
		      : (launch->input = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
		return false;
	return make_pipe(&command->outputs[0], &launch->output, true) &&
	       make_pipe(&command->outputs[1], &launch->error, true);
}

static bool open_terminal(struct command *command, struct launch *launch, const struct request *request, char *path)
{
	if (!terminal_open(&command->outputs[0], &launch->input, path, request->cols, request->rows))
		return false;
	launch->output = launch->error = launch->input;
	launch->terminal = path;
	command->input = fcntl(command->outputs[0], F_DUPFD_CLOEXEC, 3);
	return command->input >= 0;
}

static void close_all(struct command *command, struct launch *launch)
{
	close_descriptor(&command->input);
	for (int i = 0; i < OUTPUTS; i++)
		close_descriptor(&command->outputs[i]);
	if (launch->output != launch->input)
		close_descriptor(&launch->output);
	if (launch->error != launch->input)
		close_descriptor(&launch->error);
	close_descriptor(&launch->input);
}

/* ---- the life of a command ---- */

static void on_open(struct stream *stream, struct fields fields)
{
	struct request request = {0};
	const char *fault = read_request(fields, &request);
	if (fault) {
		free_request(&request);
		stream_refuse(stream, STATUS_INVALID, fault);
		return;
	}
	struct command *command = must_allocate(sizeof *command);
	*command = (struct command){
		.stream = stream,
		.terminal = request.terminal != NULL,
		.input = -1,
		.input_place = NOT_POLLED,
		.outputs = {-1, -1},
		.output_places = {NOT_POLLED, NOT_POLLED},
		.started_ns = clock_ns(),
		.deadline_ns = INT64_MAX,
	};
	if (request.timeout_ms > 0 && request.timeout_ms < INT64_MAX / 2000000)
		command->deadline_ns = command->started_ns + (int64_t)request.timeout_ms * 1000000;
	char *directory = resolve_directory(request.directory);
	struct launch launch = {
		.argv = request.argv,
		.environment = request.environment,
		.directory = directory,
		.input = -1,
		.output = -1,
		.error = -1,
		.extra = -1,
		.supervised = true,
	};
	char path[TERMINAL_PATH_SIZE];
	bool opened = command->terminal ? open_terminal(command, &launch, &request, path)
					: open_pipes(command, &launch, request.has_input);
	if (opened) {
		command->name = must_copy(request.argv[0], strlen(request.argv[0]));
		command->directory = directory;
		command->process = process_start(&launch);
		command->next = commands;
		commands = command;
		stream->owner = command;
	} else {
		int error = errno;
		close_all(command, &launch);
		free(command);
		free(directory);
		stream_fail(stream, error, "open pipes for", request.argv[0]);
	}
	free_request(&request);
}

static void put_exit(struct command *command, struct buffer *fields)
{
	int status = process_status(command->process);
	if (command->timed_out)
		field_put_uint(fields, TAG_TIMED_OUT, 1);
	else if (WIFSIGNALED(status))
		field_put_uint(fields, TAG_SIGNAL, (uint64_t)WTERMSIG(status));
	else
		field_put_uint(fields, TAG_EXIT_CODE, (uint64_t)WEXITSTATUS(status));
	field_put_uint(fields, TAG_DURATION, (uint64_t)(clock_ns() - command->started_ns));
}

static void report_end(struct command *command)
{
	struct stream *stream = command->stream;
	bool entering;
	int error = process_start_error(command->process, &entering);
	if (!stream)
		return;
	if (command->canceled) {
		stream_close(stream, STATUS_CANCELED, NULL);
		return;
	}
	if (error) {
		stream_fail(stream, error, entering ? "enter" : "run",
			    entering ? command->directory : command->name);
		return;
	}
	struct buffer fields = {0};
	put_exit(command, &fields);
	stream_close(stream, STATUS_OK, &fields);
	buffer_free(&fields);
}

static void end_command(struct command *command)
{
	struct command **link = &commands;
	while (*link != command)
		link = &(*link)->next;
	*link = command->next;
	report_end(command);
	close_descriptor(&command->input);
	for (int i = 0; i < OUTPUTS; i++)
		close_descriptor(&command->outputs[i]);
	buffer_free(&command->pending);
	process_release(command->process);
	free(command->name);
	free(command->directory);
	free(command);
}

/* Takes no more input and tells the peer that it is dealt with. */
static void drop_input(struct command *command)
{
	close_descriptor(&command->input);
	if (command->stream)
		stream_consumed(command->stream, buffer_size(&command->pending));
	buffer_consume(&command->pending, buffer_size(&command->pending));
}

static void take_input(struct command *command, size_t size)
{
	buffer_consume(&command->pending, size);
	if (command->stream)
		stream_consumed(command->stream, size);
}

/* A typed Ctrl-C or the like: takes back the line, shows the character, and has the signal sent. */
static void interrupt(struct command *command, struct terminal_input input)
{
	const uint8_t shown[2] = {'^', *buffer_data(&command->pending) ^ 0x40};
	for (; input.erase && command->line_length > 0; command->line_length--)
		if (write(command->input, &input.erase, 1) != 1)
			break;
	if (input.echo && command->stream && stream_room(command->stream) >= sizeof shown)
		stream_send(command->stream, CHANNEL_OUTPUT, shown, sizeof shown);
	command->line_length = 0;
	process_signal_foreground(command->process, input.signal);
	command->held_until_ns = clock_ns() + HOLD_NS;
	take_input(command, 1);
}

static bool is_held(const struct command *command)
{
	return command->terminal && process_is_signalling(command->process) && clock_ns() < command->held_until_ns;
}

/* Does what comes first in the input; false when it must wait, or cannot go on. */
static bool put_input(struct command *command)
{
	const uint8_t *data = buffer_data(&command->pending);
	size_t size = buffer_size(&command->pending);
	if (command->terminal) {
		struct terminal_input input = terminal_interpret(command->input, *data);
		if (input.signal) {
			interrupt(command, input);
			return true;
		}
	}
	ssize_t taken = command->terminal ? terminal_write(command->input, data, size)
					  : write(command->input, data, size);
	if (taken < 0 && errno == EINTR)
		return true;
	if (taken < 0 && errno != EAGAIN)
		drop_input(command);
	if (taken < 0)
		return false;
	if (command->terminal)
		command->line_length =
			terminal_line_length(command->input, command->line_length, data, (size_t)taken);
	take_input(command, (size_t)taken);
	return true;
}

static void pump_input(struct command *command)
{
	while (command->input >= 0 && buffer_size(&command->pending) > 0 && !is_held(command))
		if (!put_input(command))
			return;
	if (command->input_ended && !command->terminal)
		close_descriptor(&command->input);
}

static void on_input(struct stream *stream, const uint8_t *data, size_t size)
{
	struct command *command = stream->owner;
	if (command->input < 0) {
		stream_consumed(stream, size);
		return;
	}
	buffer_append(&command->pending, data, size);
	pump_input(command);
}

static void on_input_end(struct stream *stream)
{
	struct command *command = stream->owner;
	uint8_t end = END_OF_TERMINAL_INPUT;
	command->input_ended = true;
	if (command->terminal && command->input >= 0)
		buffer_append(&command->pending, &end, 1);
	pump_input(command);
}

static void send_signal(struct command *command)
{
	pid_t group = process_id(command->process);
	if (command->signal == 0 || (group == 0 && !process_ended(command->process)))
		return;
	if (command->terminal)
		process_signal_foreground(command->process, command->signal);
	else if (group > 1)
		kill(-group, command->signal);
	command->signal = 0;
}

static void on_control(struct stream *stream, uint8_t code, struct fields fields)
{
	struct command *command = stream->owner;
	uint64_t cols, rows, number;
	if (code == CONTROL_RESIZE && command->terminal && fields_uint(fields, TAG_COLS, 80, &cols) &&
	    fields_uint(fields, TAG_ROWS, 24, &rows) && terminal_resize(command->input, cols, rows))
		process_signal_foreground(command->process, SIGWINCH);
	if (code != CONTROL_SIGNAL || !fields_uint(fields, TAG_SIGNAL, 0, &number) || number < 1 || number > 64)
		return;
	command->signal = (int)number;
	send_signal(command);
}

static void on_cancel(struct stream *stream)
{
	struct command *command = stream->owner;
	command->canceled = command->killing = true;
}

static void on_forget(struct stream *stream)
{
	struct command *command = stream->owner;
	command->stream = NULL;
	command->deadline_ns = INT64_MAX;
}

const struct operation exec_operation = {
	.open = on_open,
	.input = on_input,
	.input_end = on_input_end,
	.control = on_control,
	.cancel = on_cancel,
	.forget = on_forget,
};

/* ---- output ---- */

static size_t output_room(const struct command *command)
{
	if (!command->stream || command->canceled)
		return DATA_LIMIT;
	return stream_room(command->stream);
}

/* Reads one portion. What nobody is there to read is dropped: no operation can ask for it (yet). */
static void pump_output(struct command *command, int output)
{
	int *descriptor = &command->outputs[output];
	size_t room = output_room(command);
	if (*descriptor < 0 || room == 0)
		return;
	ssize_t got = read(*descriptor, stream_reserve(room), room);
	if (got < 0 && (errno == EINTR || (errno == EAGAIN && !command->killed)))
		return;
	if (got <= 0)
		close_descriptor(descriptor);
	else if (command->stream && !command->canceled)
		stream_commit(command->stream, output == 0 ? CHANNEL_OUTPUT : CHANNEL_ERROR, (size_t)got);
}

/* ---- the event loop's part ---- */

static void prepare_command(struct command *command)
{
	command->input_place = NOT_POLLED;
	if (is_held(command))
		poller_wake_at(command->held_until_ns);
	else if (command->input >= 0 && buffer_size(&command->pending) > 0)
		command->input_place = poller_add(command->input, POLLOUT);
	for (int i = 0; i < OUTPUTS; i++) {
		command->output_places[i] = NOT_POLLED;
		if (command->outputs[i] >= 0 && output_room(command) > 0)
			command->output_places[i] = poller_add(command->outputs[i], POLLIN);
	}
	if ((command->killing && !command->killed) || command->signal)
		poller_wake_at(clock_ns() + RETRY_NS);
	else if (!command->killed)
		poller_wake_at(command->deadline_ns);
	else if (command->killed && output_room(command) > 0)
		poller_wake_at(0);
}

void exec_prepare(void)
{
	for (struct command *command = commands; command; command = command->next)
		prepare_command(command);
}

static void pump_kill(struct command *command)
{
	if (!command->killing && !command->killed && clock_ns() >= command->deadline_ns) {
		/* A command that ended in time is late only because its reader is, or because a process that it did
		 * not start holds its pipe. */
		command->killed = process_gone(command->process);
		command->timed_out = command->killing = !command->killed;
	}
	if (command->killing && !command->killed)
		command->killed = process_kill_tree(command->process) && process_ended(command->process);
}

static bool is_finished(const struct command *command)
{
	if (!process_ended(command->process))
		return false;
	if (command->canceled)
		return command->killed;
	return command->outputs[0] < 0 && command->outputs[1] < 0;
}

static void pump_command(struct command *command)
{
	pump_kill(command);
	send_signal(command);
	if (poller_ready(command->input_place))
		pump_input(command);
	for (int i = 0; i < OUTPUTS; i++)
		if (command->killed || poller_ready(command->output_places[i]))
			pump_output(command, i);
	if (is_finished(command))
		end_command(command);
}

/* The first becomes the last, so that none is always first to take the link's room. */
static void rotate(void)
{
	struct command *first = commands, **last = &commands;
	if (!first || !first->next)
		return;
	while (*last)
		last = &(*last)->next;
	*last = first;
	commands = first->next;
	first->next = NULL;
}

void exec_pump(void)
{
	for (struct command *command = commands, *next; command; command = next) {
		next = command->next;
		pump_command(command);
	}
	rotate();
}
