#define _GNU_SOURCE
#include "directory.h"

#include "path.h"
#include "poller.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A LIST that goes on over many turns of the event loop. */
struct listing {
	struct listing *next;
	struct stream *stream;
	char *path;
	char **names;
	size_t name_count, name_next;
	struct buffer pending; /* entries that go out */
};

static struct listing *listings;

static struct listing *add_listing(struct stream *stream, char *path)
{
	struct listing *listing = must_allocate(sizeof *listing);
	*listing = (struct listing){.next = listings, .stream = stream, .path = path};
	listings = listing;
	stream->owner = listing;
	return listing;
}

static void free_listing(struct listing *listing)
{
	struct listing **link = &listings;
	while (*link != listing)
		link = &(*link)->next;
	*link = listing->next;
	for (size_t i = 0; i < listing->name_count; i++)
		free(listing->names[i]);
	free(listing->names);
	free(listing->path);
	buffer_free(&listing->pending);
	free(listing);
}

static void on_cancel(struct stream *stream)
{
	struct listing *listing = stream->owner;
	stream_close(stream, STATUS_CANCELED, NULL);
	free_listing(listing);
}

static void on_forget(struct stream *stream)
{
	free_listing(stream->owner);
}

static bool put_entry(struct buffer *out, const char *path)
{
	struct stat status;
	char target[PATH_MAX];
	if (lstat(path, &status) < 0)
		return false;
	field_put_text(out, TAG_NAME, path_base_name(path));
	field_put_text(out, TAG_PATH, path);
	field_put_uint(out, TAG_MODE, status.st_mode);
	field_put_uint(out, TAG_SIZE, (uint64_t)status.st_size);
	field_put_uint(out, TAG_MTIME, (uint64_t)status.st_mtim.tv_sec);
	if (!S_ISLNK(status.st_mode))
		return true;
	ssize_t length = readlink(path, target, sizeof target);
	if (length >= 0)
		field_put(out, TAG_LINK_TARGET, target, (size_t)length);
	return true;
}

static void open_stat(struct stream *stream, struct fields fields)
{
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	struct buffer answer = {0};
	path_strip_slashes(path);
	if (put_entry(&answer, path))
		stream_close(stream, STATUS_OK, &answer);
	else
		stream_fail(stream, errno, "look at", path);
	buffer_free(&answer);
	free(path);
}

const struct operation stat_operation = {.open = open_stat};

/* ---- LIST ---- */

static int compare_names(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static void add_name(struct listing *listing, const char *name, size_t *capacity)
{
	if (listing->name_count == *capacity) {
		*capacity = *capacity ? *capacity * 2 : 64;
		listing->names = realloc(listing->names, *capacity * sizeof *listing->names);
		if (!listing->names)
			exit(1);
	}
	listing->names[listing->name_count++] = must_copy(name, strlen(name));
}

static int read_names(struct listing *listing)
{
	DIR *directory = opendir(listing->path);
	if (!directory)
		return errno;
	struct dirent *item;
	size_t capacity = 0;
	while ((item = readdir(directory)))
		if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
			add_name(listing, item->d_name, &capacity);
	closedir(directory);
	if (listing->name_count > 0)
		qsort(listing->names, listing->name_count, sizeof *listing->names, compare_names);
	return 0;
}

static bool append_entry(struct listing *listing, const char *path)
{
	struct buffer entry = {0};
	uint8_t length[4];
	bool found = put_entry(&entry, path);
	if (found) {
		store_u32(length, (uint32_t)buffer_size(&entry));
		buffer_append(&listing->pending, length, sizeof length);
		buffer_append(&listing->pending, buffer_data(&entry), buffer_size(&entry));
	}
	buffer_free(&entry);
	return found;
}

static void open_list(struct stream *stream, struct fields fields)
{
	struct stat status;
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	struct listing *listing = add_listing(stream, path);
	int error = 0;
	if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
		error = read_names(listing);
		path_strip_slashes(path);
	} else if (!append_entry(listing, path)) {
		error = errno;
	}
	if (error) {
		stream_fail(stream, error, "list", path);
		free_listing(listing);
	}
}

/* Adds entries until a frame is full. One that vanished meanwhile is left out. */
static void fill_entries(struct listing *listing)
{
	const char *separator = strcmp(listing->path, "/") == 0 ? "" : "/";
	while (listing->name_next < listing->name_count && buffer_size(&listing->pending) < DATA_LIMIT) {
		const char *name = listing->names[listing->name_next++];
		size_t length = strlen(listing->path) + strlen(name) + 2;
		char *path = must_allocate(length);
		snprintf(path, length, "%s%s%s", listing->path, separator, name);
		append_entry(listing, path);
		free(path);
	}
}

static void pump(struct listing *listing)
{
	if (stream_room(listing->stream) == 0)
		return;
	fill_entries(listing);
	size_t sent = stream_send(listing->stream, CHANNEL_OUTPUT, buffer_data(&listing->pending), buffer_size(&listing->pending));
	buffer_consume(&listing->pending, sent);
	if (buffer_size(&listing->pending) == 0 && listing->name_next == listing->name_count) {
		stream_close(listing->stream, STATUS_OK, NULL);
		free_listing(listing);
	}
}

const struct operation list_operation = {
	.open = open_list,
	.cancel = on_cancel,
	.forget = on_forget,
};

void directory_prepare(void)
{
	for (struct listing *listing = listings; listing; listing = listing->next)
		if (stream_room(listing->stream) > 0)
			poller_wake_at(0);
}

void directory_pump(void)
{
	for (struct listing *listing = listings, *next; listing; listing = next) {
		next = listing->next;
		pump(listing);
	}
}
