#define _GNU_SOURCE
#include "vitals.h"

#include "poller.h"
#include "process.h"
#include "table.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>

enum { SIGNAL_MAX = 64 };

/* ---- PROCESSES ---- */

/* A reading that is on its way out, as the stream's credit allows. */
struct listing {
	struct listing *next;
	struct stream *stream;
	struct buffer pending;
	uint64_t clock_ns;
};

static struct listing *listings;

static void free_listing(struct listing *listing)
{
	struct listing **link = &listings;
	while (*link != listing)
		link = &(*link)->next;
	*link = listing->next;
	buffer_free(&listing->pending);
	free(listing);
}

static void append_entry(struct buffer *out, const struct table_entry *found)
{
	struct buffer entry = {0};
	uint8_t length[4];
	const char state[2] = {found->state, 0};
	field_put_uint(&entry, TAG_PID, (uint64_t)found->id);
	field_put_uint(&entry, TAG_PARENT_PID, (uint64_t)found->parent);
	field_put_text(&entry, TAG_NAME, found->name);
	field_put_text(&entry, TAG_STATE, state);
	field_put_uint(&entry, TAG_CPU_TIME, found->cpu_ns);
	field_put_uint(&entry, TAG_RESIDENT, found->resident_bytes);
	field_put_uint(&entry, TAG_START_TIME, found->start_ticks);
	store_u32(length, (uint32_t)buffer_size(&entry));
	buffer_append(out, length, sizeof length);
	buffer_append(out, buffer_data(&entry), buffer_size(&entry));
	buffer_free(&entry);
}

static void open_processes(struct stream *stream, struct fields fields)
{
	(void)fields;
	struct table table = {0};
	struct listing *listing = must_allocate(sizeof *listing);
	*listing = (struct listing){.next = listings, .stream = stream, .clock_ns = (uint64_t)clock_ns()};
	listings = listing;
	stream->owner = listing;
	table_read(&table);
	for (size_t i = 0; i < table.count; i++)
		append_entry(&listing->pending, &table.entries[i]);
	table_free(&table);
}

static void cancel_processes(struct stream *stream)
{
	free_listing(stream->owner);
	stream_close(stream, STATUS_CANCELED, NULL);
}

static void forget_processes(struct stream *stream)
{
	free_listing(stream->owner);
}

static void pump_listing(struct listing *listing)
{
	struct buffer *pending = &listing->pending;
	size_t sent = stream_send(listing->stream, CHANNEL_OUTPUT, buffer_data(pending), buffer_size(pending));
	buffer_consume(pending, sent);
	if (buffer_size(pending) > 0)
		return;
	struct buffer fields = {0};
	field_put_uint(&fields, TAG_CLOCK, listing->clock_ns);
	stream_close(listing->stream, STATUS_OK, &fields);
	buffer_free(&fields);
	free_listing(listing);
}

const struct operation processes_operation = {
	.open = open_processes,
	.cancel = cancel_processes,
	.forget = forget_processes,
};

void vitals_prepare(void)
{
	for (const struct listing *listing = listings; listing; listing = listing->next)
		if (stream_room(listing->stream) > 0)
			poller_wake_at(0);
}

void vitals_pump(void)
{
	for (struct listing *listing = listings, *next; listing; listing = next) {
		next = listing->next;
		pump_listing(listing);
	}
}

/* ---- SIGNAL ---- */

static void open_signal(struct stream *stream, struct fields fields)
{
	uint64_t id, number;
	if (!stream_uint(stream, fields, TAG_PID, &id) || !stream_uint(stream, fields, TAG_SIGNAL, &number))
		return;
	if (id == 0 || number < 1 || number > SIGNAL_MAX) {
		stream_refuse(stream, STATUS_INVALID, "the process id or the signal is out of range");
		return;
	}
	int error = 0;
	if (id > INT_MAX)
		error = ESRCH;
	else if (id == 1 || process_is_supervisor((pid_t)id))
		error = EPERM;
	else if (kill((pid_t)id, (int)number) < 0)
		error = errno;
	if (error)
		stream_fail(stream, error, "signal", "the process");
	else
		stream_close(stream, STATUS_OK, NULL);
}

const struct operation signal_operation = {.open = open_signal};

/* ---- VITALS ---- */

static void open_vitals(struct stream *stream, struct fields fields)
{
	(void)fields;
	struct table table = {0};
	table_read(&table);
	struct buffer answer = {0};
	field_put_uint(&answer, TAG_PROCESS_COUNT, table.count);
	table_free(&table);
	stream_close(stream, STATUS_OK, &answer);
	buffer_free(&answer);
}

const struct operation vitals_operation = {.open = open_vitals};
