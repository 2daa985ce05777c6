#define _GNU_SOURCE
#include "exec.h"

#include "command.h"
#include "exec_request.h"
#include "input.h"
#include "poller.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { END_OF_TERMINAL_INPUT = 0x04 };

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

static bool open_terminal(struct command *command, struct launch *launch, const struct exec_request *request,
			  char *path)
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

/* ---- the stream ---- */

static struct command *make_command(struct stream *stream, const struct exec_request *request)
{
	struct command *command = must_allocate(sizeof *command);
	*command = (struct command){
		.stream = stream,
		.feeder = stream,
		.keep = request->keep != 0,
		.ring.limit = request->keep ? RING_LIMIT : RING_SHORT_LIMIT,
		.terminal = request->terminal != NULL,
		.input = -1,
		.input_place = NOT_POLLED,
		.outputs = {-1, -1},
		.output_places = {NOT_POLLED, NOT_POLLED},
		.started_ns = clock_ns(),
		.deadline_ns = INT64_MAX,
	};
	if (request->timeout_ms > 0 && request->timeout_ms < INT64_MAX / 2000000)
		command->deadline_ns = command->started_ns + (int64_t)request->timeout_ms * 1000000;
	return command;
}

static void start(struct stream *stream, const struct exec_request *request)
{
	struct command *command = make_command(stream, request);
	struct launch launch = {
		.argv = request->argv,
		.environment = request->environment,
		.directory = request->directory,
		.input = -1,
		.output = -1,
		.error = -1,
		.extra = -1,
		.supervised = true,
	};
	char path[TERMINAL_PATH_SIZE];
	bool opened = command->terminal ? open_terminal(command, &launch, request, path)
					: open_pipes(command, &launch, request->has_input);
	if (!opened) {
		int error = errno;
		close_all(command, &launch);
		free(command);
		stream_fail(stream, error, "open pipes for", request->argv[0]);
		return;
	}
	stream->owner = command;
	command_start(command, &launch, request->id);
}

static void on_open(struct stream *stream, struct fields fields)
{
	struct exec_request request = {0};
	const char *fault = exec_request_read(fields, &request);
	if (fault)
		stream_refuse(stream, STATUS_INVALID, fault);
	else if (request.id && command_find(request.id))
		stream_fail(stream, EEXIST, "start", request.id);
	else
		start(stream, &request);
	exec_request_free(&request);
}

static void on_input(struct stream *stream, const uint8_t *data, size_t size)
{
	struct command *command = stream->owner;
	if (command->input < 0) {
		stream_consumed(stream, size);
		return;
	}
	buffer_append(&command->pending, data, size);
	input_feed(command);
}

static void on_input_end(struct stream *stream)
{
	struct command *command = stream->owner;
	uint8_t end = END_OF_TERMINAL_INPUT;
	command->input_ended = true;
	if (command->terminal && command->input >= 0)
		buffer_append(&command->pending, &end, 1);
	input_feed(command);
}

const struct operation exec_operation = {
	.open = on_open,
	.input = on_input,
	.input_end = on_input_end,
	.control = command_on_control,
	.cancel = command_on_cancel,
	.forget = command_on_forget,
	.abandon = command_on_abandon,
};
