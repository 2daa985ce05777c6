#define _GNU_SOURCE
#include "watch.h"

#include "file.h"
#include "path.h"
#include "poller.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	DIRECTORY_LIMIT = 8192, /* watched by all streams together */
	EVENT_BYTES = 16384,
	PENDING_LIMIT = DATA_LIMIT,
};

/* How long the first half of a rename waits for the second before it counts as a move out of the tree. */
#define PAIR_NS 20000000LL

#define EVENTS (IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)

enum kind { KIND_READY, KIND_CREATE, KIND_MODIFY, KIND_DELETE, KIND_RENAME };

struct directory {
	int watch;
	char *path;
};

struct watch {
	struct watch *next;
	struct stream *stream;
	int descriptor, place;
	bool recursive, ended;
	struct directory *directories; /* the first is the root */
	size_t count, capacity;
	struct buffer pending;
	/* The first half of a rename, or NULL. */
	char *moved;
	uint32_t cookie;
	bool moved_directory;
	int64_t moved_until_ns;
	enum kind last_kind; /* to say repeated writes once */
	char *last_path;
	/* Entries that a scan of a new directory found: their own CREATE may still be in the queue. */
	char **scanned;
	size_t scanned_count, scanned_capacity;
};

static struct watch *watches;
static size_t directory_count;

static void *grown(void *array, size_t *capacity, size_t item)
{
	*capacity = *capacity ? *capacity * 2 : 16;
	array = realloc(array, *capacity * item);
	if (!array)
		exit(1);
	return array;
}

static char *joined(const char *folder, const char *name)
{
	size_t size = strlen(folder) + strlen(name) + 2;
	char *path = must_allocate(size);
	snprintf(path, size, "%s%s%s", strcmp(folder, "/") == 0 ? "" : folder, name[0] ? "/" : "", name);
	return path;
}

static void forget_scanned(struct watch *watch)
{
	for (size_t i = 0; i < watch->scanned_count; i++)
		free(watch->scanned[i]);
	watch->scanned_count = 0;
}

static void free_watch(struct watch *watch)
{
	struct watch **link = &watches;
	while (*link != watch)
		link = &(*link)->next;
	*link = watch->next;
	if (watch->descriptor >= 0)
		close(watch->descriptor);
	directory_count -= watch->count;
	for (size_t i = 0; i < watch->count; i++)
		free(watch->directories[i].path);
	free(watch->directories);
	forget_scanned(watch);
	free(watch->scanned);
	free(watch->moved);
	free(watch->last_path);
	buffer_free(&watch->pending);
	free(watch);
}

static void fail_watch(struct watch *watch, int error, const char *path)
{
	stream_fail(watch->stream, error, "watch", path);
	free_watch(watch);
}

/* ---- what goes out ---- */

static void put_event(struct watch *watch, enum kind kind, const char *path, const char *new_path)
{
	if (kind == KIND_MODIFY && watch->last_kind == kind && strcmp(watch->last_path, path) == 0)
		return;
	watch->last_kind = kind;
	free(watch->last_path);
	watch->last_path = must_copy(path, strlen(path));
	struct buffer event = {0};
	uint8_t length[4];
	field_put_uint(&event, TAG_CHANGE, kind);
	field_put_text(&event, TAG_PATH, path);
	if (new_path)
		field_put_text(&event, TAG_NEW_PATH, new_path);
	store_u32(length, (uint32_t)buffer_size(&event));
	buffer_append(&watch->pending, length, sizeof length);
	buffer_append(&watch->pending, buffer_data(&event), buffer_size(&event));
	buffer_free(&event);
}

/* ---- the watched directories ---- */

static void drop_directory(struct watch *watch, size_t index)
{
	free(watch->directories[index].path);
	watch->directories[index] = watch->directories[--watch->count];
	directory_count--;
}

static struct directory *find_directory(struct watch *watch, int descriptor)
{
	for (size_t i = 0; i < watch->count; i++)
		if (watch->directories[i].watch == descriptor)
			return &watch->directories[i];
	return NULL;
}

static bool is_below(const char *path, const char *folder)
{
	size_t length = strlen(folder);
	return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* Takes over `path`. A directory that vanished meanwhile is no error. */
static int add_directory(struct watch *watch, char *path)
{
	if (directory_count >= DIRECTORY_LIMIT) {
		free(path);
		return ENOSPC;
	}
	uint32_t follow = watch->count == 0 ? 0 : IN_DONT_FOLLOW;
	int descriptor = inotify_add_watch(watch->descriptor, path, EVENTS | follow);
	int error = descriptor < 0 ? errno : 0;
	bool vanished = error == ENOENT || error == ENOTDIR || error == EACCES;
	if (error || find_directory(watch, descriptor)) {
		free(path);
		return vanished && watch->count > 0 ? 0 : error;
	}
	if (watch->count == watch->capacity)
		watch->directories = grown(watch->directories, &watch->capacity, sizeof *watch->directories);
	watch->directories[watch->count++] = (struct directory){descriptor, path};
	directory_count++;
	return 0;
}

static bool is_directory(const char *path)
{
	struct stat status;
	return lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static void note_scanned(struct watch *watch, const char *path)
{
	if (watch->scanned_count == watch->scanned_capacity)
		watch->scanned = grown(watch->scanned, &watch->scanned_capacity, sizeof *watch->scanned);
	watch->scanned[watch->scanned_count++] = must_copy(path, strlen(path));
	put_event(watch, KIND_CREATE, path, NULL);
}

/* Watches what is in the directory, and reports it when it is new. */
static int scan_directory(struct watch *watch, const char *folder, bool report)
{
	DIR *listing = opendir(folder);
	if (!listing)
		return 0;
	int error = 0;
	struct dirent *item;
	while (!error && (item = readdir(listing))) {
		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		char *path = joined(folder, item->d_name);
		if (report && !file_is_temporary(item->d_name))
			note_scanned(watch, path);
		if (is_directory(path))
			error = add_directory(watch, path);
		else
			free(path);
	}
	closedir(listing);
	return error;
}

/* Watches a directory and all below it; takes over `path`. The list of directories is the work to do. */
static int add_tree(struct watch *watch, char *path, bool report)
{
	size_t next = watch->count;
	int error = add_directory(watch, path);
	for (; !error && watch->recursive && next < watch->count; next++) {
		char *folder = must_copy(watch->directories[next].path, strlen(watch->directories[next].path));
		error = scan_directory(watch, folder, report);
		free(folder);
	}
	return error;
}

static void drop_tree(struct watch *watch, const char *path)
{
	for (size_t i = watch->count; i-- > 1;) {
		if (!is_below(watch->directories[i].path, path))
			continue;
		inotify_rm_watch(watch->descriptor, watch->directories[i].watch);
		drop_directory(watch, i);
	}
}

static void rename_tree(struct watch *watch, const char *from, const char *to)
{
	for (size_t i = 1; i < watch->count; i++) {
		struct directory *directory = &watch->directories[i];
		if (!is_below(directory->path, from))
			continue;
		char *path = joined(to, directory->path + strlen(from) + (directory->path[strlen(from)] == '/'));
		free(directory->path);
		directory->path = path;
	}
}

/* ---- what comes in ---- */

/* The first half of a rename whose second half did not come: it left the tree. */
static void settle_move(struct watch *watch)
{
	char *path = watch->moved;
	if (!path)
		return;
	watch->moved = NULL;
	if (!file_is_temporary(path)) {
		put_event(watch, KIND_DELETE, path, NULL);
		if (watch->moved_directory)
			drop_tree(watch, path);
	}
	free(path);
}

static bool was_scanned(const struct watch *watch, const char *path)
{
	for (size_t i = 0; i < watch->scanned_count; i++)
		if (strcmp(watch->scanned[i], path) == 0)
			return true;
	return false;
}

static int take_created(struct watch *watch, const char *path, bool directory)
{
	if (!was_scanned(watch, path))
		put_event(watch, KIND_CREATE, path, NULL);
	if (!directory || !watch->recursive)
		return 0;
	return add_tree(watch, must_copy(path, strlen(path)), true);
}

static int take_moved_to(struct watch *watch, uint32_t cookie, const char *path, bool directory)
{
	char *from = watch->moved;
	if (!from || watch->cookie != cookie) {
		settle_move(watch);
		return take_created(watch, path, directory);
	}
	watch->moved = NULL;
	if (file_is_temporary(from)) {
		put_event(watch, file_is_replacement(from) ? KIND_MODIFY : KIND_CREATE, path, NULL);
	} else {
		put_event(watch, KIND_RENAME, from, path);
		if (directory)
			rename_tree(watch, from, path);
	}
	free(from);
	return 0;
}

static void take_moved_from(struct watch *watch, const struct inotify_event *event, char *path)
{
	settle_move(watch);
	watch->moved = must_copy(path, strlen(path));
	watch->cookie = event->cookie;
	watch->moved_directory = event->mask & IN_ISDIR;
	watch->moved_until_ns = clock_ns() + PAIR_NS;
}

static int take_named(struct watch *watch, const struct inotify_event *event, char *path)
{
	bool directory = event->mask & IN_ISDIR;
	if (event->mask & IN_MOVED_TO)
		return take_moved_to(watch, event->cookie, path, directory);
	if (event->mask & IN_MOVED_FROM) {
		take_moved_from(watch, event, path);
		return 0;
	}
	if (file_is_temporary(path))
		return 0;
	settle_move(watch);
	if (event->mask & IN_CREATE)
		return take_created(watch, path, directory);
	if (event->mask & IN_MODIFY)
		put_event(watch, KIND_MODIFY, path, NULL);
	else if (event->mask & IN_DELETE)
		put_event(watch, KIND_DELETE, path, NULL);
	return 0;
}

static int take_event(struct watch *watch, const struct inotify_event *event)
{
	if (event->mask & IN_Q_OVERFLOW)
		return ENOBUFS;
	struct directory *directory = find_directory(watch, event->wd);
	if (!directory)
		return 0;
	bool root = directory == watch->directories;
	if (event->mask & IN_DELETE_SELF && root) {
		settle_move(watch);
		put_event(watch, KIND_DELETE, directory->path, NULL);
		watch->ended = true;
	}
	if (event->mask & IN_IGNORED && !root)
		drop_directory(watch, (size_t)(directory - watch->directories));
	if (event->len == 0 || !event->name[0])
		return 0;
	char *path = joined(directory->path, event->name);
	int error = take_named(watch, event, path);
	free(path);
	return error;
}

/* Returns an errno, or 0 also when there is nothing to read. */
static int read_events(struct watch *watch)
{
	_Alignas(struct inotify_event) char bytes[EVENT_BYTES];
	ssize_t size = read(watch->descriptor, bytes, sizeof bytes);
	if (size < 0) {
		if (errno == EAGAIN)
			forget_scanned(watch);
		return errno == EAGAIN || errno == EINTR ? 0 : errno;
	}
	int error = 0;
	for (ssize_t at = 0; !error && at < size;) {
		const struct inotify_event *event = (const struct inotify_event *)(bytes + at);
		error = take_event(watch, event);
		at += (ssize_t)(sizeof *event + event->len);
	}
	return error;
}

/* ---- the operation ---- */

static void open_watch(struct stream *stream, struct fields fields)
{
	uint64_t recursive;
	if (!stream_uint(stream, fields, TAG_RECURSIVE, &recursive))
		return;
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	path_strip_slashes(path);
	struct watch *watch = must_allocate(sizeof *watch);
	*watch = (struct watch){.next = watches, .stream = stream, .recursive = recursive != 0, .place = NOT_POLLED};
	watches = watch;
	stream->owner = watch;
	char *shown = must_copy(path, strlen(path));
	watch->descriptor = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int error = watch->descriptor < 0 ? errno : 0;
	if (error)
		free(path);
	else
		error = add_tree(watch, path, false);
	if (error)
		fail_watch(watch, error, shown);
	else
		put_event(watch, KIND_READY, shown, NULL);
	free(shown);
}

static void cancel_watch(struct stream *stream)
{
	struct watch *watch = stream->owner;
	stream_close(stream, STATUS_CANCELED, NULL);
	free_watch(watch);
}

static void forget_watch(struct stream *stream)
{
	free_watch(stream->owner);
}

const struct operation watch_operation = {
	.open = open_watch,
	.cancel = cancel_watch,
	.forget = forget_watch,
};

/* ---- the event loop's part ---- */

void watch_prepare(void)
{
	for (struct watch *watch = watches; watch; watch = watch->next) {
		watch->place = NOT_POLLED;
		if (buffer_size(&watch->pending) > 0 && stream_room(watch->stream) > 0)
			poller_wake_at(0);
		if (buffer_size(&watch->pending) < PENDING_LIMIT && !watch->ended)
			watch->place = poller_add(watch->descriptor, POLLIN);
		if (watch->moved)
			poller_wake_at(watch->moved_until_ns);
	}
}

static void send_pending(struct watch *watch)
{
	size_t sent = stream_send(
		watch->stream, CHANNEL_OUTPUT, buffer_data(&watch->pending), buffer_size(&watch->pending));
	buffer_consume(&watch->pending, sent);
	if (watch->ended && buffer_size(&watch->pending) == 0) {
		stream_close(watch->stream, STATUS_OK, NULL);
		free_watch(watch);
	}
}

void watch_pump(void)
{
	for (struct watch *watch = watches, *next; watch; watch = next) {
		next = watch->next;
		int error = poller_ready(watch->place) ? read_events(watch) : 0;
		if (error) {
			fail_watch(watch, error, watch->directories[0].path);
			continue;
		}
		if (watch->moved && clock_ns() >= watch->moved_until_ns)
			settle_move(watch);
		if (buffer_size(&watch->pending) > 0)
			send_pending(watch);
	}
}
