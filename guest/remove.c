#define _GNU_SOURCE
#include "remove.h"

#include "poller.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Entries removed in one turn: a few milliseconds. */
enum { PORTION = 200 };

struct place {
	dev_t device;
	ino_t inode;
};

/* The walk keeps one directory open and goes up by "..", checked against where it came from: any depth, no path
 * limit, and a directory moved meanwhile does not lead it astray. */
struct removal {
	struct removal *next;
	struct stream *stream;
	char *path;
	DIR *directory; /* the one being emptied */
	bool progress;  /* something went since the directory was last rewound */
	int error;      /* of the entry that would not go */
	struct place *above; /* from the root of the walk to the parent of `directory` */
	size_t depth, capacity;
};

static struct removal *removals;

static void free_removal(struct removal *removal)
{
	struct removal **link = &removals;
	while (*link != removal)
		link = &(*link)->next;
	*link = removal->next;
	if (removal->directory)
		closedir(removal->directory);
	free(removal->above);
	free(removal->path);
	free(removal);
}

static void end_removal(struct removal *removal, int error)
{
	if (error)
		stream_fail(removal->stream, error, "remove", removal->path);
	else
		stream_close(removal->stream, STATUS_OK, NULL);
	free_removal(removal);
}

static bool is_protected(const struct stat *status)
{
	static const char *const paths[] = {"/", "/proc", "/sys", "/dev"};
	struct stat other;
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		if (lstat(paths[i], &other) == 0 && other.st_dev == status->st_dev &&
		    other.st_ino == status->st_ino)
			return true;
	return false;
}

/* Removes what one system call can; ENOTEMPTY says that a directory must be emptied first. */
static int remove_entry(int parent, const char *name)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	int error = errno;
	if (error != EISDIR && error != EPERM)
		return error;
	if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	return errno == ENOTDIR ? error : errno == EEXIST ? ENOTEMPTY : errno;
}

static bool is_place(int directory, const struct place *place)
{
	struct stat status;
	return fstat(directory, &status) == 0 && status.st_dev == place->device && status.st_ino == place->inode;
}

static int enter(struct removal *removal, int parent, const char *name)
{
	int descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (descriptor < 0)
		return errno;
	DIR *directory = fdopendir(descriptor);
	if (!directory) {
		close(descriptor);
		return ENOMEM;
	}
	if (removal->directory)
		closedir(removal->directory);
	removal->directory = directory;
	removal->progress = false;
	removal->error = 0;
	return 0;
}

static int descend(struct removal *removal, const char *name)
{
	struct stat status;
	if (fstat(dirfd(removal->directory), &status) < 0)
		return errno;
	if (removal->depth == removal->capacity) {
		removal->capacity = removal->capacity ? removal->capacity * 2 : 16;
		removal->above = realloc(removal->above, removal->capacity * sizeof *removal->above);
		if (!removal->above)
			exit(1);
	}
	int error = enter(removal, dirfd(removal->directory), name);
	if (!error)
		removal->above[removal->depth++] = (struct place){status.st_dev, status.st_ino};
	return error;
}

static int ascend(struct removal *removal)
{
	int error = enter(removal, dirfd(removal->directory), "..");
	if (error)
		return error;
	return is_place(dirfd(removal->directory), &removal->above[--removal->depth]) ? 0 : EBUSY;
}

/* At the end of a directory: again, up, or done. Sets `*done`. Emptied directories go on the parent's next pass. */
static int finish_pass(struct removal *removal, bool *done)
{
	if (removal->progress) {
		removal->progress = false;
		removal->error = 0;
		rewinddir(removal->directory);
		return 0;
	}
	if (removal->error)
		return removal->error;
	if (removal->depth > 0)
		return ascend(removal);
	*done = true;
	return rmdir(removal->path) < 0 && errno != ENOENT ? errno : 0;
}

static int remove_next(struct removal *removal, bool *done)
{
	errno = 0;
	struct dirent *item = readdir(removal->directory);
	if (!item)
		return errno ? errno : finish_pass(removal, done);
	if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
		return 0;
	int error = remove_entry(dirfd(removal->directory), item->d_name);
	if (error == ENOTEMPTY)
		return descend(removal, item->d_name);
	removal->progress = removal->progress || error == 0;
	removal->error = error ? error : removal->error;
	return 0;
}

static void pump_removal(struct removal *removal)
{
	bool done = false;
	int error = 0;
	for (int i = 0; i < PORTION && !done && !error; i++)
		error = remove_next(removal, &done);
	if (done || error)
		end_removal(removal, error);
}

static void on_open(struct stream *stream, struct fields fields)
{
	uint64_t recursive;
	struct stat status;
	if (!stream_uint(stream, fields, TAG_RECURSIVE, &recursive))
		return;
	char *path = stream_path(stream, fields);
	if (!path)
		return;
	struct removal *removal = must_allocate(sizeof *removal);
	*removal = (struct removal){.next = removals, .stream = stream, .path = path};
	removals = removal;
	stream->owner = removal;
	size_t length = strlen(path);
	while (length > 1 && path[length - 1] == '/')
		path[--length] = 0;
	if (lstat(path, &status) < 0) {
		end_removal(removal, errno == ENOENT ? 0 : errno);
		return;
	}
	int error = is_protected(&status) ? EBUSY : remove_entry(AT_FDCWD, path);
	if (error == ENOTEMPTY && recursive)
		error = enter(removal, AT_FDCWD, path);
	if (error || !removal->directory)
		end_removal(removal, error);
}

static void on_cancel(struct stream *stream)
{
	struct removal *removal = stream->owner;
	stream_close(stream, STATUS_CANCELED, NULL);
	free_removal(removal);
}

static void on_forget(struct stream *stream)
{
	free_removal(stream->owner);
}

const struct operation remove_operation = {
	.open = on_open,
	.cancel = on_cancel,
	.forget = on_forget,
};

void remove_prepare(void)
{
	if (removals)
		poller_wake_at(0);
}

void remove_pump(void)
{
	for (struct removal *removal = removals, *next; removal; removal = next) {
		next = removal->next;
		pump_removal(removal);
	}
}
