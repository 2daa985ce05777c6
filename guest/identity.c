#define _GNU_SOURCE
#include "identity.h"

#include "environment.h"
#include "hook.h"
#include "kernel.h"
#include "poller.h"
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ENTROPY_FIRST = 32, ENTROPY_LAST = 256, HOSTNAME_LIMIT = 64, MACHINE_ID_SIZE = 32 };

static const int64_t CONFIRM_LIMIT_NS = (int64_t)5 * 1000000000;

/* The IDENTIFY that waits for the kernels and the hooks. */
static struct stream *waiting;
static bool waits_for_hooks;
static int64_t answer_by;
static uint8_t generation[GENERATION_SIZE];

static bool is_machine_id(const struct field *field)
{
	if (field->length != MACHINE_ID_SIZE)
		return false;
	for (size_t i = 0; i < MACHINE_ID_SIZE; i++)
		if (!memchr("0123456789abcdef", field->value[i], 16))
			return false;
	return true;
}

static const char *find_fault(struct fields fields)
{
	struct field field;
	if (!fields_find(fields, TAG_GENERATION, &field) || field.length != GENERATION_SIZE)
		return "the generation is not 16 bytes long";
	if (!fields_find(fields, TAG_ENTROPY, &field) || field.length < ENTROPY_FIRST || field.length > ENTROPY_LAST)
		return "the entropy is not 32 to 256 bytes long";
	if (fields_find(fields, TAG_MACHINE_ID, &field) && !is_machine_id(&field))
		return "the machine id is not 32 lower-case hexadecimal digits";
	if (fields_find(fields, TAG_HOSTNAME, &field) &&
	    (field.length == 0 || field.length > HOSTNAME_LIMIT || memchr(field.value, 0, field.length) ||
	     memchr(field.value, '\n', field.length)))
		return "the hostname is not 1 to 64 bytes on one line";
	if (!environment_valid(fields))
		return "a variable is not NAME=value, or holds a NUL byte";
	return NULL;
}

/* Replaces a file of one line in one step. */
static int write_line(const char *path, const struct field *line)
{
	char temporary[64], text[HOSTNAME_LIMIT + 2];
	size_t size = line->length;
	snprintf(temporary, sizeof temporary, "%s.mitos-partial", path);
	memcpy(text, line->value, size);
	text[size++] = '\n';
	mkdir("/etc", 0755);
	int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file < 0)
		return errno;
	ssize_t written = write(file, text, size);
	int error = written == (ssize_t)size ? 0 : written < 0 ? errno : ENOSPC;
	close(file);
	if (!error && rename(temporary, path) < 0)
		error = errno;
	if (error)
		unlink(temporary);
	return error;
}

static int stir(const struct field *entropy)
{
	int file = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	if (file < 0)
		return errno;
	ssize_t written = write(file, entropy->value, entropy->length);
	int error = written < 0 ? errno : 0;
	close(file);
	return error;
}

/* The kernels' seed is not the bytes that went to the system: who sees one must not know the other. */
static void reseed_kernels(const struct field *entropy, struct fields fields)
{
	uint8_t seed[RESEED_ENTROPY_SIZE] = {0};
	if (getrandom(seed, sizeof seed, 0) != sizeof seed)
		explicit_bzero(seed, sizeof seed);
	for (size_t i = 0; i < sizeof seed; i++)
		seed[i] ^= entropy->value[i];
	kernel_identify(seed, generation, fields);
	explicit_bzero(seed, sizeof seed);
}

/* Applies everything but the kernels' part. Returns an errno and what could not be done. */
static int apply(struct fields fields, const char **doing)
{
	struct field field;
	int error = 0;
	environment_change(fields);
	*doing = "set the hostname";
	if (fields_find(fields, TAG_HOSTNAME, &field)) {
		if (sethostname((const char *)field.value, field.length) < 0)
			return errno;
		*doing = "write the hostname";
		error = write_line("/etc/hostname", &field);
	}
	if (!error && fields_find(fields, TAG_MACHINE_ID, &field)) {
		*doing = "write the machine id";
		error = write_line("/etc/machine-id", &field);
	}
	if (!error && fields_find(fields, TAG_ENTROPY, &field)) {
		*doing = "stir entropy";
		error = stir(&field);
	}
	stream_identify(fields);
	return error;
}

static void on_open(struct stream *stream, struct fields fields)
{
	const char *doing, *fault = waiting ? "another identity is being applied" : find_fault(fields);
	if (fault) {
		stream_refuse(stream, STATUS_INVALID, fault);
		return;
	}
	int error = apply(fields, &doing);
	if (error) {
		stream_fail(stream, error, doing, "of the sandbox");
		return;
	}
	struct field field;
	fields_find(fields, TAG_GENERATION, &field);
	memcpy(generation, field.value, sizeof generation);
	fields_find(fields, TAG_ENTROPY, &field);
	reseed_kernels(&field, fields);
	uint64_t forked;
	waits_for_hooks = fields_uint(fields, TAG_FORKED, 0, &forked) && forked;
	if (waits_for_hooks)
		hook_start();
	waiting = stream;
	answer_by = clock_ns() + CONFIRM_LIMIT_NS;
}

static void on_cancel(struct stream *stream)
{
	waiting = NULL;
	stream_close(stream, STATUS_CANCELED, NULL);
}

static void on_forget(struct stream *stream)
{
	(void)stream;
	waiting = NULL;
}

const struct operation identify_operation = {
	.open = on_open,
	.cancel = on_cancel,
	.forget = on_forget,
};

static void answer(struct stream *stream)
{
	struct timespec now;
	struct buffer fields = {0};
	clock_gettime(CLOCK_REALTIME, &now);
	field_put(&fields, TAG_GENERATION, generation, sizeof generation);
	field_put_uint(&fields, TAG_WALL_CLOCK, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
	stream_close(stream, STATUS_OK, &fields);
	buffer_free(&fields);
	relay_part();
}

/* The fields name the executable, so that the server can say what to correct. */
static void fail_with_hook(struct stream *stream)
{
	struct buffer fields = {0};
	field_put_uint(&fields, TAG_ERRNO, ECANCELED);
	field_put_text(&fields, TAG_PATH, hook_path());
	field_put_text(&fields, TAG_MESSAGE, hook_failure());
	stream_close(stream, STATUS_FAILED, &fields);
	buffer_free(&fields);
}

static enum hook_state hooks_of_this(void)
{
	return waits_for_hooks ? hook_state() : HOOKS_DONE;
}

void identity_prepare(void)
{
	hook_prepare();
	/* An agent that was frozen has not pumped yet in the turn that thawed it. */
	if (!waiting)
		return;
	if (!kernel_all_confirmed())
		poller_wake_at(answer_by);
	else if (hooks_of_this() != HOOKS_RUNNING)
		poller_wake_at(0);
}

void identity_pump(void)
{
	hook_pump();
	struct stream *stream = waiting;
	bool confirmed = kernel_all_confirmed();
	if (!stream || (!confirmed && clock_ns() < answer_by) || (confirmed && hooks_of_this() == HOOKS_RUNNING))
		return;
	waiting = NULL;
	if (!confirmed)
		stream_fail(stream, ETIMEDOUT, "reseed", "a code kernel or run its hooks");
	else if (hooks_of_this() == HOOKS_FAILED)
		fail_with_hook(stream);
	else
		answer(stream);
}
