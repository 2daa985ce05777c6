#define _GNU_SOURCE
#include "tree.h"

#include "table.h"

#include <signal.h>

/* Each pass stops what the last one missed, so only processes born during a pass are left for the next. */
enum { PASS_LIMIT = 100 };

static bool is_dead(const struct table_entry *entry)
{
	return entry->state == 'Z' || entry->state == 'X';
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
			struct table_entry *entry = &table->entries[i];
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
		struct table_entry *entry = &table->entries[i];
		if (!entry->within || is_dead(entry))
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
		if (table->entries[i].within && !is_dead(&table->entries[i])) {
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
		table_read(&now);
		mark_descendants(&now, root, with_root);
		size_t fresh = stop_new(&now, &before);
		struct table swap = before;
		before = now;
		now = swap;
		if (fresh == 0)
			break;
	}
	size_t killed = kill_all(&before);
	table_free(&now);
	table_free(&before);
	return killed == 0;
}
