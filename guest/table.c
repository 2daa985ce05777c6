#define _GNU_SOURCE
#include "table.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t NS_PER_S = 1000000000;

static void copy_name(struct table_entry *entry, const char *start, const char *end)
{
	size_t length = (size_t)(end - start);
	if (length >= sizeof entry->name)
		length = sizeof entry->name - 1;
	memcpy(entry->name, start, length);
	entry->name[length] = 0;
}

/* Reads `pid (name) state parent …`; the name may hold anything, also parentheses. The id there is no use: gVisor
 * writes 0 for a process that is just ending, and a signal to 0 goes to the agent's own group. */
static bool parse_entry(const char *text, pid_t id, struct table_entry *entry)
{
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	unsigned long long user, system, start;
	long pages;
	*entry = (struct table_entry){.id = id};
	if (!open || !close || close < open)
		return false;
	copy_name(entry, open + 1, close);
	/* utime and stime are fields 14 and 15, starttime is 22 and rss 24 of proc(5). */
	if (sscanf(close + 1,
		   " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %*u %ld",
		   &entry->state, &entry->parent, &user, &system, &start, &pages) != 6)
		return false;
	entry->cpu_ns = (user + system) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
	entry->start_ticks = start;
	entry->resident_bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
	return true;
}

static bool read_entry(int proc, const char *name, struct table_entry *entry)
{
	char path[64], text[512];
	snprintf(path, sizeof path, "%.20s/stat", name);
	int file = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	ssize_t size = read(file, text, sizeof text - 1);
	close(file);
	if (size <= 0)
		return false;
	text[size] = 0;
	return parse_entry(text, atoi(name), entry);
}

static void add_entry(struct table *table, const struct table_entry *entry)
{
	if (table->count == table->capacity) {
		table->capacity = table->capacity ? table->capacity * 2 : 64;
		table->entries = realloc(table->entries, table->capacity * sizeof *table->entries);
		if (!table->entries)
			exit(1);
	}
	table->entries[table->count++] = *entry;
}

void table_read(struct table *table)
{
	table->count = 0;
	DIR *proc = opendir("/proc");
	if (!proc)
		return;
	struct dirent *item;
	struct table_entry entry;
	while ((item = readdir(proc)))
		if (item->d_name[0] >= '1' && item->d_name[0] <= '9' &&
		    read_entry(dirfd(proc), item->d_name, &entry))
			add_entry(table, &entry);
	closedir(proc);
}

void table_free(struct table *table)
{
	free(table->entries);
	*table = (struct table){0};
}
