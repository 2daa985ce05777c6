#define _GNU_SOURCE
#include "tree.h"

#include "buffer.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each pass stops what the last one missed, so only processes born during a pass are left for the next. */
enum { PASS_LIMIT = 100 };

struct entry {
	pid_t id, parent;
	bool dead, within, stopped;
};

struct table {
	struct entry *entries;
	size_t count, capacity;
};

/* Reads `pid (name) state parent …`; the name may hold anything, also parentheses. */
static bool read_entry(int proc, const char *name, struct entry *entry)
{
	char path[64], text[512], state;
	snprintf(path, sizeof path, "%.20s/stat", name);
	int file = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	ssize_t size = read(file, text, sizeof text - 1);
	close(file);
	if (size <= 0)
		return false;
	text[size] = 0;
	const char *rest = strrchr(text, ')');
	*entry = (struct entry){.id = atoi(name)};
	if (!rest || sscanf(rest + 1, " %c %d", &state, &entry->parent) != 2)
		return false;
	entry->dead = state == 'Z' || state == 'X';
	return true;
}

static void add_entry(struct table *table, struct entry entry)
{
	if (table->count == table->capacity) {
		table->capacity = table->capacity ? table->capacity * 2 : 64;
		table->entries = realloc(table->entries, table->capacity * sizeof *table->entries);
		if (!table->entries)
			exit(1);
	}
	table->entries[table->count++] = entry;
}

static void read_table(struct table *table)
{
	table->count = 0;
	DIR *proc = opendir("/proc");
	if (!proc)
		return;
	struct dirent *item;
	struct entry entry;
	while ((item = readdir(proc)))
		if (item->d_name[0] >= '1' && item->d_name[0] <= '9' &&
		    read_entry(dirfd(proc), item->d_name, &entry))
			add_entry(table, entry);
	closedir(proc);
}

static bool is_within(const struct table *table, pid_t id, pid_t root)
{
	if (id == root)
		return true;
	for (size_t i = 0; i < table->count; i++)
		if (table->entries[i].id == id)
			return table->entries[i].within;
	return false;
}

static void mark_descendants(struct table *table, pid_t root, bool with_root)
{
	bool changed = true;
	while (changed) {
		changed = false;
		for (size_t i = 0; i < table->count; i++) {
			struct entry *entry = &table->entries[i];
			if (entry->within || (entry->id == root && !with_root))
				continue;
			entry->within = entry->id == root || is_within(table, entry->parent, root);
			changed = changed || entry->within;
		}
	}
}

static bool was_stopped(const struct table *before, pid_t id)
{
	for (size_t i = 0; i < before->count; i++)
		if (before->entries[i].id == id)
			return before->entries[i].stopped;
	return false;
}

/* Stops those not stopped yet; returns how many there were. */
static size_t stop_new(struct table *table, const struct table *before)
{
	size_t fresh = 0;
	for (size_t i = 0; i < table->count; i++) {
		struct entry *entry = &table->entries[i];
		if (!entry->within || entry->dead)
			continue;
		if (!was_stopped(before, entry->id)) {
			kill(entry->id, SIGSTOP);
			fresh++;
		}
		entry->stopped = true;
	}
	return fresh;
}

static size_t kill_all(const struct table *table)
{
	size_t killed = 0;
	for (size_t i = 0; i < table->count; i++) {
		if (table->entries[i].within && !table->entries[i].dead) {
			kill(table->entries[i].id, SIGKILL);
			killed++;
		}
	}
	return killed;
}

bool tree_kill(pid_t root, bool with_root)
{
	struct table now = {0}, before = {0};
	for (int pass = 0; pass < PASS_LIMIT; pass++) {
		read_table(&now);
		mark_descendants(&now, root, with_root);
		size_t fresh = stop_new(&now, &before);
		struct table swap = before;
		before = now;
		now = swap;
		if (fresh == 0)
			break;
	}
	size_t killed = kill_all(&before);
	free(now.entries);
	free(before.entries);
	return killed == 0;
}
