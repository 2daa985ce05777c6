#define _GNU_SOURCE
#include "cell.h"

#include "kernel.h"
#include "poller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CODE_LIMIT = 32 << 20, LANGUAGE_LIMIT = 64 };

/* ---- the end of a cell ---- */

bool cell_is_heard(const struct cell *cell)
{
	return cell->stream && !cell->canceled;
}

void cell_free(struct cell *cell)
{
	buffer_free(&cell->code);
	buffer_free(&cell->closing_events);
	free(cell);
}

void cell_end_with(struct cell *cell, const char *name, const char *value, uint32_t missing)
{
	char text[512];
	uint8_t failed = 1;
	int size = snprintf(text, sizeof text, "{\"name\":\"%s\",\"value\":\"%s\",\"traceback\":[]}", name, value);
	message_put(&cell->closing_events, MESSAGE_ERROR, text, (size_t)size);
	message_put(&cell->closing_events, MESSAGE_DONE, &failed, 1);
	cell->padding = missing;
	cell->exit_code = failed;
	cell->done = true;
}

static bool send_padding(struct cell *cell)
{
	static const uint8_t zeros[4096];
	while (cell->padding > 0) {
		size_t size = cell->padding < sizeof zeros ? cell->padding : sizeof zeros;
		size_t sent = stream_send(cell->stream, CHANNEL_OUTPUT, zeros, size);
		cell->padding -= sent;
		if (sent == 0)
			return false;
	}
	return true;
}

bool cell_send_closing_events(struct cell *cell)
{
	if (!cell_is_heard(cell))
		return true;
	if (!send_padding(cell))
		return false;
	size_t sent = stream_send(cell->stream, CHANNEL_OUTPUT, buffer_data(&cell->closing_events),
				  buffer_size(&cell->closing_events));
	buffer_consume(&cell->closing_events, sent);
	return buffer_size(&cell->closing_events) == 0;
}

void cell_close(struct cell *cell)
{
	if (!cell->stream)
		return;
	if (cell->canceled) {
		stream_close(cell->stream, STATUS_CANCELED, NULL);
		return;
	}
	struct buffer fields = {0};
	field_put_uint(&fields, TAG_EXIT_CODE, cell->exit_code);
	stream_close(cell->stream, STATUS_OK, &fields);
	buffer_free(&fields);
}

/* ---- the operation ---- */

static bool language_valid(const char *language)
{
	size_t length = strspn(language, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
	return length > 0 && length <= LANGUAGE_LIMIT && language[length] == 0;
}

static void on_open(struct stream *stream, struct fields fields)
{
	struct field field;
	uint64_t timeout_ms;
	if (!stream_uint(stream, fields, TAG_TIMEOUT, &timeout_ms))
		return;
	char *language = fields_find(fields, TAG_LANGUAGE, &field) ? field_copy_text(&field) : NULL;
	if (!language || !language_valid(language)) {
		free(language);
		stream_refuse(stream, STATUS_INVALID, "the language is missing or not letters, digits, _ and -");
		return;
	}
	struct kernel *kernel = kernel_find(language);
	free(language);
	if (!kernel) {
		stream_refuse(stream, STATUS_UNAVAILABLE, "this sandbox has no kernel for the language");
		return;
	}
	struct cell *cell = must_allocate(sizeof *cell);
	*cell = (struct cell){
		.kernel = kernel,
		.stream = stream,
		.timeout_ms = timeout_ms > UINT32_MAX ? 0 : (uint32_t)timeout_ms,
		.interrupt_at = INT64_MAX,
		.kill_at = INT64_MAX,
	};
	stream->owner = cell;
}

static void on_input(struct stream *stream, const uint8_t *data, size_t size)
{
	struct cell *cell = stream->owner;
	if (buffer_size(&cell->code) + size > CODE_LIMIT) {
		cell_free(cell);
		stream_refuse(stream, STATUS_INVALID, "the code is over 32 MiB");
		return;
	}
	buffer_append(&cell->code, data, size);
	stream_consumed(stream, size);
}

/* The code is complete: the cell takes its place in the queue. */
static void on_input_end(struct stream *stream)
{
	struct cell *cell = stream->owner, **last = &cell->kernel->cells;
	while (*last)
		last = &(*last)->next;
	*last = cell;
}

static bool is_running(const struct cell *cell)
{
	return cell->kernel->running && cell->kernel->cells == cell;
}

/* Drops a cell that does not run: one still being sent, or a queued one. */
static void drop_cell(struct cell *cell)
{
	struct cell **link = &cell->kernel->cells;
	while (*link && *link != cell)
		link = &(*link)->next;
	if (*link)
		*link = cell->next;
	cell_free(cell);
}

/* Interrupts the cell if it runs; true when it does not: it is gone. */
static bool stop_cell(struct cell *cell)
{
	if (!is_running(cell)) {
		drop_cell(cell);
		return true;
	}
	cell->canceled = true;
	kernel_interrupt(cell->kernel);
	return false;
}

static void on_cancel(struct stream *stream)
{
	if (stop_cell(stream->owner))
		stream_close(stream, STATUS_CANCELED, NULL);
}

static void on_abandon(struct stream *stream)
{
	struct cell *cell = stream->owner;
	cell->stream = NULL;
	stop_cell(cell);
}

/* A complete cell still runs, in its turn; one that was still being sent goes. */
static void on_forget(struct stream *stream)
{
	struct cell *cell = stream->owner;
	if (!stream->input_ended) {
		drop_cell(cell);
		return;
	}
	cell->stream = NULL;
	cell->timeout_ms = 0;
	cell->interrupt_at = cell->kill_at = INT64_MAX;
}

const struct operation run_code_operation = {
	.open = on_open,
	.input = on_input,
	.input_end = on_input_end,
	.cancel = on_cancel,
	.forget = on_forget,
	.abandon = on_abandon,
};
