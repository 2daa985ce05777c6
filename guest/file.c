#define _GNU_SOURCE
#include "file.h"

#include "path.h"
#include "poller.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINK_LIMIT = 40 };

enum job_kind { JOB_READ, JOB_WRITE };

/* A file operation that goes on over many turns of the event loop. */
struct job {
	struct job *next;
	struct stream *stream;
	enum job_kind kind;
	char *path;
	int descriptor, place;
	bool waiting; /* the descriptor had nothing to give or take: a pipe or a device */
	uint64_t moved, limit;

	struct buffer pending;     /* WRITE: what has come in */
	char *temporary;           /* WRITE: beside `path`, or NULL when written in place */
	mode_t mode;
};

static struct job *jobs;

static struct job *add_job(struct stream *stream, enum job_kind kind, char *path)
{
	struct job *job = must_allocate(sizeof *job);
	*job = (struct job){
		.next = jobs,
		.stream = stream,
		.kind = kind,
		.path = path,
		.descriptor = -1,
		.place = NOT_POLLED,
		.limit = UINT64_MAX,
	};
	jobs = job;
	stream->owner = job;
	return job;
}

/* Also undoes a half-written file. */
static void free_job(struct job *job)
{
	struct job **link = &jobs;
	while (*link != job)
		link = &(*link)->next;
	*link = job->next;
	if (job->descriptor >= 0)
		close(job->descriptor);
	if (job->temporary)
		unlink(job->temporary);
	free(job->temporary);
	free(job->path);
	buffer_free(&job->pending);
	free(job);
}

static void fail_job(struct job *job, int error, const char *doing)
{
	stream_fail(job->stream, error, doing, job->path);
	free_job(job);
}

static void close_job(struct job *job)
{
	struct buffer fields = {0};
	field_put_uint(&fields, TAG_SIZE, job->moved);
	stream_close(job->stream, STATUS_OK, &fields);
	buffer_free(&fields);
	free_job(job);
}

static void cancel_job(struct stream *stream)
{
	struct job *job = stream->owner;
	stream_close(stream, STATUS_CANCELED, NULL);
	free_job(job);
}

static void forget_job(struct stream *stream)
{
	free_job(stream->owner);
}

/* ---- MKDIR ---- */

/* Makes the directories above the last part of the path. */
static int make_parents(const char *path)
{
	char *parents = must_copy(path, strlen(path));
	int error = 0;
	for (char *slash = strchr(parents + 1, '/'); slash && !error; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(parents, 0755) < 0 && errno != EEXIST) {
			struct stat status;
			int reason = errno;
			error = stat(parents, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : reason;
		}
		*slash = '/';
	}
	free(parents);
	return error;
}

static int make_directory(const char *path, mode_t mode)
{
	struct stat status;
	int error = make_parents(path);
	if (error)
		return error;
	if (mkdir(path, mode) == 0)
		return chmod(path, mode) < 0 ? errno : 0;
	error = errno;
	return stat(path, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : error;
}

static void open_mkdir(struct stream *stream, struct fields fields)
{
	uint64_t mode;
	if (!stream_uint(stream, fields, TAG_MODE, &mode))
		return;
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	path_strip_slashes(path);
	int error = make_directory(path, mode & 07777 ? (mode_t)(mode & 07777) : 0755);
	if (error)
		stream_fail(stream, error, "make the directory", path);
	else
		stream_close(stream, STATUS_OK, NULL);
	free(path);
}

const struct operation mkdir_operation = {.open = open_mkdir};

/* ---- READ_FILE ---- */

static void open_read(struct stream *stream, struct fields fields)
{
	uint64_t offset, size;
	if (!stream_uint(stream, fields, TAG_OFFSET, &offset) || !stream_uint(stream, fields, TAG_SIZE, &size))
		return;
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	struct job *job = add_job(stream, JOB_READ, path);
	if (size > 0)
		job->limit = size;
	job->descriptor = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (job->descriptor < 0)
		fail_job(job, errno, "open");
	else if (offset > 0 && (offset > INT64_MAX || lseek(job->descriptor, (off_t)offset, SEEK_SET) < 0))
		fail_job(job, offset > INT64_MAX ? EINVAL : errno, "seek in");
}

static void pump_read(struct job *job)
{
	size_t room = stream_room(job->stream);
	if (room > job->limit - job->moved)
		room = (size_t)(job->limit - job->moved);
	if (room == 0 && job->moved < job->limit)
		return;
	ssize_t got = room == 0 ? 0 : read(job->descriptor, stream_reserve(room), room);
	job->waiting = got < 0 && errno == EAGAIN;
	if (job->waiting || (got < 0 && errno == EINTR))
		return;
	if (got < 0) {
		fail_job(job, errno, "read");
	} else if (got == 0) {
		close_job(job);
	} else {
		stream_commit(job->stream, CHANNEL_OUTPUT, (size_t)got);
		job->moved += (uint64_t)got;
	}
}

const struct operation read_file_operation = {
	.open = open_read,
	.cancel = cancel_job,
	.forget = forget_job,
};

/* ---- WRITE_FILE ---- */

/* Follows the links that the last part of the path may be, also to a file that does not exist yet.
 * Returns an errno, or 0 with `*path` replaced. */
static int follow_links(char **path)
{
	char target[PATH_MAX];
	for (int i = 0; i < LINK_LIMIT; i++) {
		ssize_t length = readlink(*path, target, sizeof target - 1);
		if (length < 0)
			return errno == EINVAL || errno == ENOENT ? 0 : errno;
		target[length] = 0;
		size_t keep = target[0] == '/' ? 0 : (size_t)(path_base_name(*path) - *path);
		char *next = must_allocate(keep + (size_t)length + 1);
		memcpy(next, *path, keep);
		memcpy(next + keep, target, (size_t)length + 1);
		free(*path);
		*path = next;
	}
	return ELOOP;
}

#define TEMPORARY_PREFIX ".mitos-"
#define NEW_SUFFIX ".partial"
#define REPLACEMENT_SUFFIX ".replacement"

static bool ends_with(const char *text, const char *suffix)
{
	size_t length = strlen(text), wanted = strlen(suffix);
	return length >= wanted && strcmp(text + length - wanted, suffix) == 0;
}

bool file_is_replacement(const char *path)
{
	return strncmp(path_base_name(path), TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) == 0 &&
	       ends_with(path, REPLACEMENT_SUFFIX);
}

bool file_is_temporary(const char *path)
{
	return file_is_replacement(path) ||
	       (strncmp(path_base_name(path), TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) == 0 &&
		ends_with(path, NEW_SUFFIX));
}

/* The suffix tells a watcher whether the rename at the end makes a file or changes one. */
static char *temporary_name(const char *path, bool exists)
{
	uint64_t random;
	if (getrandom(&random, sizeof random, 0) != sizeof random)
		random = (uint64_t)clock_ns();
	size_t keep = (size_t)(path_base_name(path) - path);
	char *name = must_allocate(keep + 48);
	memcpy(name, path, keep);
	snprintf(name + keep, 48, TEMPORARY_PREFIX "%016llx%s", (unsigned long long)random,
		 exists ? REPLACEMENT_SUFFIX : NEW_SUFFIX);
	return name;
}

/* Opens a new file beside the target, or the target itself when it is a device or a pipe. */
static int open_target(struct job *job)
{
	struct stat status;
	int error = follow_links(&job->path);
	if (error)
		return error;
	bool exists = stat(job->path, &status) == 0;
	if (!exists && errno != ENOENT)
		return errno;
	if (exists && S_ISDIR(status.st_mode))
		return EISDIR;
	if (exists && !S_ISREG(status.st_mode)) {
		job->descriptor = open(job->path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		return job->descriptor < 0 ? errno : 0;
	}
	if (!exists && (error = make_parents(job->path)))
		return error;
	char *temporary = temporary_name(job->path, exists);
	job->descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (job->descriptor < 0) {
		error = errno;
		free(temporary);
		return error;
	}
	job->temporary = temporary;
	return 0;
}

static void open_write(struct stream *stream, struct fields fields)
{
	uint64_t mode;
	if (!stream_uint(stream, fields, TAG_MODE, &mode))
		return;
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	bool directory = path[strlen(path) - 1] == '/';
	struct job *job = add_job(stream, JOB_WRITE, path);
	job->mode = mode & 07777 ? (mode_t)(mode & 07777) : 0644;
	int error = directory ? EISDIR : open_target(job);
	if (error)
		fail_job(job, error, "write");
}

/* Puts the finished file in the target's place; it takes over the mode and owner of the one it replaces. */
static int commit_file(struct job *job)
{
	struct stat old;
	if (!job->temporary)
		return 0;
	if (stat(job->path, &old) == 0) {
		if (fchown(job->descriptor, old.st_uid, old.st_gid) < 0)
			return errno;
		job->mode = old.st_mode & 07777;
	}
	if (fchmod(job->descriptor, job->mode) < 0 || rename(job->temporary, job->path) < 0)
		return errno;
	free(job->temporary);
	job->temporary = NULL;
	return 0;
}

static void pump_write(struct job *job)
{
	size_t size = buffer_size(&job->pending);
	if (size > 0) {
		ssize_t taken = write(job->descriptor, buffer_data(&job->pending), size < DATA_LIMIT ? size : DATA_LIMIT);
		job->waiting = taken < 0 && errno == EAGAIN;
		if (job->waiting || (taken < 0 && errno == EINTR))
			return;
		if (taken < 0) {
			fail_job(job, errno, "write");
			return;
		}
		job->moved += (uint64_t)taken;
		buffer_consume(&job->pending, (size_t)taken);
		stream_consumed(job->stream, (size_t)taken);
	}
	if (buffer_size(&job->pending) > 0 || !job->stream->input_ended)
		return;
	int error = commit_file(job);
	if (error)
		fail_job(job, error, "write");
	else
		close_job(job);
}

static void input_write(struct stream *stream, const uint8_t *data, size_t size)
{
	struct job *job = stream->owner;
	buffer_append(&job->pending, data, size);
}

const struct operation write_file_operation = {
	.open = open_write,
	.input = input_write,
	.cancel = cancel_job,
	.forget = forget_job,
};

/* ---- the event loop's part ---- */

static bool can_move(const struct job *job)
{
	if (job->kind == JOB_WRITE)
		return buffer_size(&job->pending) > 0 || job->stream->input_ended;
	return stream_room(job->stream) > 0 || job->moved == job->limit;
}

void file_prepare(void)
{
	for (struct job *job = jobs; job; job = job->next) {
		job->place = NOT_POLLED;
		if (!can_move(job))
			continue;
		if (job->waiting)
			job->place = poller_add(job->descriptor, job->kind == JOB_WRITE ? POLLOUT : POLLIN);
		else
			poller_wake_at(0);
	}
}

static void pump_job(struct job *job)
{
	if (job->waiting && !poller_ready(job->place))
		return;
	if (job->kind == JOB_READ)
		pump_read(job);
	else
		pump_write(job);
}

static void rotate(void)
{
	struct job *first = jobs, **last = &jobs;
	if (!first || !first->next)
		return;
	while (*last)
		last = &(*last)->next;
	*last = first;
	jobs = first->next;
	first->next = NULL;
}

void file_pump(void)
{
	for (struct job *job = jobs, *next; job; job = next) {
		next = job->next;
		pump_job(job);
	}
	rotate();
}
